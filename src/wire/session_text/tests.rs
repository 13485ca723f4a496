use proptest::prelude::*;

use super::*;

/// Returns the effect of a text that arrives in parts of these lengths.
fn effect_of_parts(text: &[u8], lengths: &[usize]) -> TextEffect {
    let (mut search, mut rest) = (PartialSearch::new(), text);
    for &length in lengths.iter().cycle() {
        let (part, other) = rest.split_at(length.min(rest.len()));
        search.add(part);
        rest = other;
        if rest.is_empty() {
            break;
        }
    }
    search.finish()
}

#[test]
fn finds_the_listed_words_only() {
    use TextEffect::{Changes, LocalSet, None};
    let cases = [
        ("SELECT 1", None),
        ("", None),
        ("SELECT * FROM template, temperature, my_set_config_table, attempts, contemporary", None),
        ("SELECT temp_c, is_temp, temporary_, étemp, tempé, temp1 FROM t", None),
        ("SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock(2), pg_advisory_unlock(3)", None),
        ("SELECT pg_template, mypg_temp, current_setting('a.b', true)", None),
        ("UPDATE t SET a = 1", None),
        ("SELECT 'compare', e.company_id, product_id, now()::timestamp, day_of_week, mp, t_, y_", None),
        // `TEMP` counts only in texts that can create an object.
        ("SELECT temp, temporary FROM readings", None),
        ("UPDATE readings SET temp = 1 -- created, intof", None),
        ("TeMp", None),
        ("SELECT 1 -- a temp value", None),
        ("SET LOCAL my.own = 'a temp value'", LocalSet),
        ("TeMp create", Changes),
        ("SELECT temp into t FROM readings", Changes),
        // A block can commit a change and then fail.
        ("CALL p()", Changes),
        ("do $$BEGIN END$$", Changes),
        ("DO/**/$$BEGIN END$$", Changes),
        (" ;\n-- a comment\n/* DO /* nested */ it */\tCall p()", Changes),
        ("SELECT 1; CALL p()", None),
        ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", None),
        ("/* call */ SELECT 1 -- do", None),
        ("-- call p()", None),
        ("/* CALL p()", None),
        ("/*/ CALL p()", None),
        ("done", None),
        ("callp()", None),
        ("CREATE TEMP TABLE a (b int)", Changes),
        ("create temporary view a as select 1", Changes),
        ("CREATE TEMPORARY SEQUENCE a", Changes),
        ("CREATE LOCAL TEMP TABLE a ()", Changes),
        ("SELECT 1 AS a INTO\ttemp\tb", Changes),
        ("CREATE/**/TEMP/**/TABLE a ()", Changes),
        ("CREATE TABLE pg_temp.a ()", Changes),
        ("CREATE TABLE \"pg_temp\".a ()", Changes),
        ("CREATE FUNCTION pg_temp_3.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", Changes),
        ("SELECT set_config('a.b', $1, false)", Changes),
        ("SELECT pg_catalog.SET_CONFIG($1, $2, $3)", Changes),
        ("SELECT \"set_config\"('a.b', 'c', false)", Changes),
        ("DO $$BEGIN PERFORM $q$set_config('a', 'b', false)$q$; END$$", Changes),
        ("SELECT pg_advisory_lock(1)", Changes),
        ("SELECT pg_advisory_lock_shared(1, 2)", Changes),
        ("SELECT pg_try_advisory_lock(1)", Changes),
        ("SELECT pg_try_advisory_lock_shared(1)", Changes),
        // Calls of `set_config` whose effect ends with the transaction.
        ("SELECT set_config('a.b', $1, true)", None),
        ("SELECT set_config ( 'a.b' , $1::text , TRUE ), set_config('c.d','e'::text,true)", None),
        ("SELECT set_config($1, $2, true), set_config('a.b', 'c', false)", Changes),
        ("SELECT set_config('a.b', 'c', false), set_config($1, $2, true)", Changes),
        ("SELECT set_config('a.b', $1, true OR false)", Changes),
        ("SELECT set_config('a.b', $1, true::text::bool)", Changes),
        ("SELECT set_config('a.b', 'it''s', true)", Changes),
        ("SELECT set_config('a.b', E'\\',true)', false)", Changes),
        ("SELECT set_config('a.b', f(1, true), false)", Changes),
        ("SELECT set_config('a.b', $1, true_)", Changes),
        ("SELECT set_config('a.b', $1, tru", Changes),
        ("SELECT set_config", Changes),
        // A `SET` is recognized by its command tag, unless its effect ends with the transaction.
        ("SET work_mem = '1MB'", None),
        ("SET LOCAL work_mem = '1MB'", LocalSet),
        (" \n set\tlocal \"my\".own TO 'a; value';\n", LocalSet),
        ("SET TRANSACTION READ ONLY", LocalSet),
        ("SET LOCAL ROLE other", LocalSet),
        ("SET local.own = 1", None),
        ("SET local . own = 1", None),
        ("SET LOCAL = 1", None),
        ("SET SESSION work_mem = '1MB'", None),
        ("SET transaction_isolation = 'serializable'", None),
        ("SET LOCAL work_mem = '1MB'; SET work_mem = '2MB'", None),
        ("SET LOCAL a = 1; SET LOCAL b = 2", LocalSet),
        ("begin; set local a = 1; SELECT 1; commit", LocalSet),
        ("START TRANSACTION; SET TRANSACTION READ ONLY", LocalSet),
        ("BEGIN; SET LOCAL a = 1; UPDATE t SET a = 1", None),
        ("BEGIN; SET LOCAL a = '; SET b'", None),
        ("BEGIN; /* SET LOCAL a */ SET b = 1", None),
        ("BEGIN; SET/**/LOCAL a = 1", None),
        ("BEGIN; SELECT 1", None),
        ("SET LOCAL a = 1; RESET b", LocalSet),
        ("SET LOCAL", None),
        ("SET", None),
        ("/* SET LOCAL a */ SET work_mem = '1MB'", None),
    ];
    for (text, expected) in cases {
        assert_eq!(effect_of(text.as_bytes()), expected, "{text}");
        assert_eq!(effect_of(format!("{text}\0").as_bytes()), expected, "{text}");
        assert_eq!(effect_of(format!("{text}\0\0\x01\0\0\0\x3b").as_bytes()), expected, "{text}");
        // Padding moves the words to each position in a block.
        for padding in 0..2 * BLOCK {
            let padded = format!("{}{text}{}", " ".repeat(padding), " ".repeat(padding % 7));
            assert_eq!(effect_of(padded.as_bytes()), expected, "{padded}");
            let in_parts = effect_of_parts(padded.as_bytes(), &[padding + 1, 3]);
            // The first word of a text in parts is recognized at its start.
            let in_parts = if may_run_block(padded.as_bytes()) { Changes } else { in_parts };
            assert!(in_parts == TextEffect::Changes || expected != TextEffect::Changes, "{padded}");
        }
    }
}

#[test]
fn counts_a_text_that_is_too_long_as_a_change() {
    let text = vec![b' '; MAX_SEARCHED];
    assert_eq!(effect_of(&text), TextEffect::None);
    assert_eq!(effect_of_parts(&text, &[1000]), TextEffect::None);
    let text = vec![b' '; MAX_SEARCHED + 1];
    assert_eq!(effect_of(&text), TextEffect::Changes);
    assert_eq!(effect_of_parts(&text, &[1000]), TextEffect::Changes);
}

/// Splits the text into words and compares each of them with the list.
fn contains_word_simply(text: &[u8]) -> bool {
    let words = || text.split(|&byte| !is_word_byte(byte));
    let creates = words().any(|word| is_one_of(word, &CREATE));
    words().any(|word| is_listed(word) && (creates || !is_one_of(word, &TEMPORARY)))
}

fn any_case(word: &[u8], upper: u32) -> Vec<u8> {
    let change = |(at, byte): (usize, &u8)| if upper >> at & 1 == 1 { byte.to_ascii_uppercase() } else { *byte };
    word.iter().enumerate().map(change).collect()
}

proptest! {
    #[test]
    fn never_misses_a_word(
        word in prop::sample::select(&WORDS[..]),
        upper in any::<u32>(),
        create in 0..2,
        before in "[ a-z0-9_'\"$(.,é\\n-]{0,80}",
        after in "[ a-z0-9_'\"$(.,é\\n-]{0,80}",
        separators in ("[ \\t\\n'\"$(;.,/-]", "[ \\t\\n'\"$();.,/-]"),
        parts in prop::collection::vec(1..40usize, 1..20),
    ) {
        let word = any_case(word, upper);
        let (mut before, mut after) = (before + &separators.0, separators.1 + &after);
        match create {
            0 => before.insert_str(0, "Create "),
            _ => after.push_str(" into"),
        }
        let text = [before.as_bytes(), &word, after.as_bytes()].concat();
        prop_assert_eq!(effect_of(&text), TextEffect::Changes);
        prop_assert_eq!(effect_of_parts(&text, &parts), TextEffect::Changes);
        for split in 0..=text.len() {
            let mut search = PartialSearch::new();
            search.add(&text[..split]);
            search.add(&text[split..]);
            prop_assert_eq!(search.finish(), TextEffect::Changes, "split at {}", split);
        }
    }

    #[test]
    fn agrees_with_a_simple_search(
        pieces in prop::collection::vec(
            prop_oneof![
                prop::sample::select(&WORDS[..]).prop_map(<[u8]>::to_vec),
                prop::sample::select(&["mp", "t_", "y_", "TEM", "p", "_", "a", "é", "1"][..]).prop_map(|t| t.into()),
                prop::sample::select(&["Create", "inTO", "crea"][..]).prop_map(|t| t.into()),
                prop::collection::vec(any::<u8>(), 0..40),
                prop::sample::select(&b" ($'.\0"[..]).prop_map(|byte| vec![byte]),
            ],
            0..12,
        ),
        parts in prop::collection::vec(1..40usize, 1..20),
    ) {
        let text = pieces.concat();
        let expected = contains_word_simply(&text);
        let found = match find_words(&text, false) {
            Found::Nothing => false,
            Found::Temporary => may_create(&text),
            Found::Other => true,
        };
        prop_assert_eq!(found, expected);
        prop_assert_eq!(effect_of_parts(&text, &parts) == TextEffect::Changes, expected);
    }
}
