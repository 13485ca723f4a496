use super::*;

fn keyword(word: &str) -> Refusal {
    Refusal::Keyword(word.into())
}

#[test]
fn accepts_single_statements_of_the_listed_kinds() {
    for text in [
        "SELECT 1",
        "select 1",
        "SeLeCt 1",
        "  \t\r\n\x0b\x0cSELECT 1",
        "SELECT 1;",
        "SELECT 1 ; ; ;",
        "SELECT 1; -- the end",
        "SELECT 1 /* the end */ ; /* ; */",
        "-- a comment\nSELECT 1",
        "-- a comment\rSELECT 1",
        "/* one */ SELECT 1",
        "/* /* nested */ still */ SELECT 1",
        "/**/SELECT/**/1",
        "/*;*/SELECT 1",
        "SELECT/* DROP TABLE t; */ 1",
        "(SELECT 1)",
        "((SELECT 1) UNION (SELECT 2))",
        "( /* c */ VALUES (1))",
        "(TABLE t)",
        "(WITH a AS (SELECT 1) SELECT * FROM a)",
        "INSERT INTO t VALUES (1)",
        "insert into t select * from u returning id",
        "INSERT /* c */ INTO t DEFAULT VALUES",
        "UPDATE t SET a = 1",
        "DELETE FROM t WHERE a = $1",
        "MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE",
        "VALUES (1), (2)",
        "TABLE t",
        "SHOW server_version",
        "WITH a AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM a",
        "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
        "WITH a AS (SELECT 1) MERGE INTO t USING a ON true WHEN MATCHED THEN DELETE",
        "WITH a AS (WITH b AS (SELECT 1) INSERT INTO t SELECT * FROM b RETURNING *) SELECT * FROM a",
        "WITH RECURSIVE a (n) AS (VALUES ((1))) INSERT INTO t SELECT n FROM a",
        "SELECT E'a' 'into'",
        "WITH RECURSIVE a AS (SELECT 1) TABLE a",
        "SELECT ';'",
        "SELECT 'it''s; fine'",
        "SELECT E'it\\'s; fine'",
        "SELECT e'\\\\'",
        "SELECT U&'d\\0061t;' UESCAPE '\\'",
        "SELECT \"a;b\" FROM t",
        "SELECT \"a\"\"; into\" FROM t",
        "SELECT $$ ; DROP TABLE t; $$",
        "SELECT $tag$ $$ ; $tag $ $tag$",
        "SELECT $ä$;$ä$",
        "SELECT $1, $2",
        "SELECT $1;",
        "SELECT a$b$c FROM t",
        "SELECT 'a' 'b'",
        "SELECT 1 AS into",
        "SELECT t.into FROM t",
        "SELECT t . into FROM t",
        "SELECT 'into', \"into\"",
        "SELECT intox, into_ FROM t",
        "SELECT 1 -- INTO t",
        "SELECT 1 FOR UPDATE",
        "SELECT 1 - -1",
        "SELECT 2 / 1 * 3",
        "SELECT .5, 1.5e3",
        "SELECT 'unterminated; DROP TABLE t",
        "SELECT /* unterminated; DROP TABLE t",
    ] {
        assert_eq!(check(text), Ok(()), "{text}");
    }
}

#[test]
fn refuses_everything_else() {
    for (text, expected) in [
        ("", Refusal::Empty),
        ("   ", Refusal::Empty),
        (";", Refusal::Empty),
        (" ; SELECT 1", Refusal::Empty),
        ("-- SELECT 1", Refusal::Empty),
        ("/* SELECT 1 */", Refusal::Empty),
        ("/* SELECT 1", Refusal::Empty),
        ("()", Refusal::NoKeyword),
        ("'SELECT 1'", Refusal::NoKeyword),
        ("\"SELECT\" 1", Refusal::NoKeyword),
        ("$$SELECT 1$$", Refusal::NoKeyword),
        ("1", Refusal::NoKeyword),
        ("*", Refusal::NoKeyword),
        ("\u{feff}SELECT 1", keyword("\u{feff}SELECT")),
        ("SELECTED", keyword("SELECTED")),
        ("BEGIN", keyword("BEGIN")),
        ("begin;", keyword("BEGIN")),
        ("START TRANSACTION", keyword("START")),
        ("COMMIT", keyword("COMMIT")),
        ("END", keyword("END")),
        ("ABORT", keyword("ABORT")),
        ("ROLLBACK", keyword("ROLLBACK")),
        ("SAVEPOINT a", keyword("SAVEPOINT")),
        ("RELEASE a", keyword("RELEASE")),
        ("/* SELECT */ COMMIT", keyword("COMMIT")),
        ("-- SELECT\nCOMMIT", keyword("COMMIT")),
        ("/* /* */ SELECT 1 */ COMMIT", keyword("COMMIT")),
        ("SET a.b = 1", keyword("SET")),
        ("RESET ALL", keyword("RESET")),
        ("DISCARD ALL", keyword("DISCARD")),
        ("LISTEN a", keyword("LISTEN")),
        ("UNLISTEN *", keyword("UNLISTEN")),
        ("NOTIFY a", keyword("NOTIFY")),
        ("PREPARE a AS SELECT 1", keyword("PREPARE")),
        ("EXECUTE a", keyword("EXECUTE")),
        ("DEALLOCATE ALL", keyword("DEALLOCATE")),
        ("DECLARE a CURSOR FOR SELECT 1", keyword("DECLARE")),
        ("FETCH a", keyword("FETCH")),
        ("COPY t FROM STDIN", keyword("COPY")),
        ("CALL p()", keyword("CALL")),
        ("DO $$ BEGIN END $$", keyword("DO")),
        ("LOCK t", keyword("LOCK")),
        ("CREATE TABLE t ()", keyword("CREATE")),
        ("ALTER TABLE t ADD a int", keyword("ALTER")),
        ("DROP TABLE t", keyword("DROP")),
        ("TRUNCATE t", keyword("TRUNCATE")),
        ("VACUUM", keyword("VACUUM")),
        ("GRANT ALL ON t TO u", keyword("GRANT")),
        ("EXPLAIN SELECT 1", keyword("EXPLAIN")),
        ("EXPLAIN ANALYZE DELETE FROM t", keyword("EXPLAIN")),
        ("(EXPLAIN SELECT 1)", keyword("EXPLAIN")),
        ("(INSERT INTO t VALUES (1))", keyword("INSERT")),
        ("e", keyword("E")),
        ("SELECT 1; SELECT 2", Refusal::Several),
        ("SELECT 1;;COMMIT", Refusal::Several),
        ("SELECT ';'; COMMIT", Refusal::Several),
        ("SELECT E'\\''; COMMIT", Refusal::Several),
        ("SELECT E'\\\\'; COMMIT", Refusal::Several),
        ("SELECT $$;$$; COMMIT", Refusal::Several),
        ("SELECT $a$ $b$ $a$; COMMIT -- $a$", Refusal::Several),
        ("SELECT a$$; COMMIT; SELECT b$$", Refusal::Several),
        ("SELECT 1 -- ;\n; COMMIT", Refusal::Several),
        ("SELECT /* /* */ ' */ 1; COMMIT", Refusal::Several),
        ("SELECT $1;COMMIT", Refusal::Several),
        ("SELECT 1 INTO t", Refusal::SelectInto),
        ("SELECT * into temp t FROM u", Refusal::SelectInto),
        ("SELECT a AS b INTO t FROM u", Refusal::SelectInto),
        ("SELECT/**/1/**/INTO/**/t", Refusal::SelectInto),
        ("SELECT INTO t", Refusal::SelectInto),
        ("SELECT 1INTO t", Refusal::SelectInto),
        ("SELECT 1e5INTO t", Refusal::SelectInto),
        ("SELECT 1E-5INTO t", Refusal::SelectInto),
        ("SELECT .5INTO t", Refusal::SelectInto),
        ("SELECT insert INTO t FROM u", Refusal::SelectInto),
        ("SELECT (1) merge INTO t", Refusal::SelectInto),
        ("WITH insert AS (SELECT 1) SELECT insert INTO t FROM insert", Refusal::SelectInto),
        ("SELECT E'a' -- b\n'\\'' , 'x' INTO t", Refusal::SelectInto),
        ("SELECT 1.INTO t", Refusal::SelectInto),
        ("SELECT 'a'INTO t", Refusal::SelectInto),
        ("SELECT $1INTO t", Refusal::SelectInto),
        ("(SELECT 1 INTO t)", Refusal::SelectInto),
        ("WITH a AS (SELECT 1) SELECT * INTO t FROM a", Refusal::SelectInto),
        ("VALUES (1) UNION SELECT 1 INTO t", Refusal::SelectInto),
    ] {
        assert_eq!(check(text), Err(expected), "{text}");
    }
}

#[test]
fn errors_name_the_keyword_and_never_the_rest_of_the_statement() {
    let refusal = check("drop table secret").unwrap_err();
    assert_eq!(refusal.to_string(), "a statement that begins with `DROP` is not accepted");
    let long = check(&"x".repeat(1000)).unwrap_err();
    assert_eq!(long, Refusal::Keyword("X".repeat(SHOWN)));
}

proptest::proptest! {
    #[test]
    fn a_leading_statement_or_comment_does_not_hide_the_rest(text in "[a-zA-Z0-9 ;'\"$/*\\\\().\n-]{0,60}") {
        let accepted = check(&text).is_ok();
        let prefixed = check(&format!("SELECT 1; SELECT {text}"));
        proptest::prop_assert_eq!(prefixed, Err(Refusal::Several));
        if accepted {
            proptest::prop_assert_eq!(check(&format!("/* {} */ {}", "BEGIN;", text)), Ok(()));
        }
    }
}
