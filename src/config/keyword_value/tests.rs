use proptest::prelude::*;

use super::*;
use crate::Config;

fn read(text: &str) -> Config {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[track_caller]
fn refuses(text: &str, parameter: &str, expected: &str) {
    let error = text.parse::<Config>().and_then(|config| config.validate()).expect_err(text);
    assert_eq!(error.parameter(), parameter, "{text}: {error}");
    assert!(error.to_string().contains(expected), "{text}: {error}");
}

#[test]
fn reads_every_way_of_writing_it() {
    for text in [
        r"host=db port=5433 user=app password=it\'s dbname=shop application_name='web shop'",
        "\t host = db\n port = '5433' user= 'app' password ='it\\'s' dbname=shop application_name=web\\ shop  ",
        r"host='db'port='5433'user='app'password='it\'s'dbname='shop'application_name='web shop'",
        r"host='d\b' port=\5433 user=app password=it's dbname=shop application_name='web\ shop'",
    ] {
        let config = read(text);
        assert_eq!(config.host().to_string(), "db");
        assert_eq!((config.port(), config.user(), config.dbname()), (5433, "app", "shop"));
        assert_eq!(config.password().unwrap().expose(), "it's");
        assert_eq!(config.application_name(), Some("web shop"));
    }
}

#[test]
fn an_empty_value_is_quoted_and_counts_as_left_out() {
    let config = read("host=db user=app password='' dbname=''");
    assert!(config.password().is_none());
    assert_eq!(config.dbname(), "app");
    // As in libpq: the blanks after `=` are skipped, and the value is what comes then.
    refuses("host= port=5", "host", "got `port=5`");
}

#[test]
fn a_backslash_at_the_very_end_stands_for_nothing() {
    assert_eq!(read(r"host=db user=app\").user(), "app");
    refuses(r"host=db user='app\'", "conninfo", "single quote at the end");
}

#[test]
fn names_what_is_wrong() {
    refuses("", "host", "none is given");
    refuses("db.svc", "conninfo", "got `db.svc`");
    refuses("host=db user", "conninfo", "got `user`");
    refuses("host=db user name=app", "conninfo", "got `user`");
    refuses("host=db =app", "conninfo", "`name=value`");
    refuses("host=db user='app", "conninfo", "single quote at the end");
    refuses("host=db user=\0", "conninfo", "zero byte");
    refuses("host=db poolsize=5", "poolsize", "the nearest is `pool_size`");
    refuses("host=db port=5 port=6", "port", "given twice");
    refuses("host=db port=x", "port", "from 1 to 65535, got `x`");
    refuses("host=a,b", "host", "stands for all its Pods");
    refuses("host=/tmp", "host", "not a Unix socket");
    refuses("host=db password=x password_file=/y", "password_file", "`password` is given too");
}

#[test]
fn what_may_be_a_piece_of_a_password_is_not_repeated() {
    for text in [
        "host=db password=my hunter2",
        "host=db password=my hunter2 secret=5",
        "host=db password=my port=hunter2",
        "host=db password=my hunter2=5 sslmode=x",
        "host=db password='my'hunter2",
        "host=db password='my 'hunter2'",
        "host=db sslmode=' password='hunter2",
        "host=db sslmode='x password=hunter2'",
        "host=db PASSWORD=hunter2",
        "host=db password_file=/run/x password=my hunter2",
    ] {
        let error = text.parse::<Config>().expect_err(text);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}: {error}");
    }
    // What can only be a slip is named all the same, and what stands before the password is.
    refuses("host=db password=x poolsize=5", "password", "the nearest is `pool_size`");
    refuses("host=db poolsize=5 password=x", "poolsize", "the nearest is `pool_size`");
    refuses("host=db password_file=/run/x poolsize=5", "poolsize", "the nearest is `pool_size`");
}

proptest! {
    #[test]
    fn what_is_quoted_is_read_back(user in "[^\0]+", password in "[^\0]+", options in "[^\0]+", gap in "[ \t\n]{0,2}") {
        let text = format!(
            "{gap}host=db{gap} user{gap}={gap}{}{gap}password={}{gap}options{gap}={gap}{}{gap}",
            quote(&user), quote(&password), quote(&options),
        );
        let config: Config = text.parse().unwrap();
        prop_assert_eq!(config.user(), &user);
        prop_assert_eq!(config.password().unwrap().expose(), &password);
        prop_assert_eq!(config.options(), Some(&*options));
    }

    #[test]
    fn both_forms_mean_the_same(user in "[^\0]+", password in "[^\0]+", dbname in "[^\0]+", port in 1u16..) {
        use crate::config::percent::encode;
        let url = format!("postgres://{}:{}@db:{port}/{}", encode(&user), encode(&password), encode(&dbname));
        let pairs = format!("host=db port={port} user={} password={} dbname={}", quote(&user), quote(&password), quote(&dbname));
        let (url, pairs): (Config, Config) = (url.parse().unwrap(), pairs.parse().unwrap());
        prop_assert_eq!(format!("{url:?}"), format!("{pairs:?}"));
        prop_assert!(url.password().unwrap().is(pairs.password().unwrap()));
    }

    #[test]
    fn never_panics_and_never_repeats_a_password(
        before in "[a-z_='\\\\ ]{0,30}", secret in "Zq[a-z]{6}Kx", after in "[a-z_='\\\\ ]{0,30}", any in any::<String>(),
    ) {
        let texts = [
            any,
            format!("{before} password={secret}{after}"),
            format!("{before} password='{after}{secret}"),
            format!("host=db password={after} {secret}"),
            format!("host=db password={after} {secret}=1 sslmode={secret}"),
        ];
        for text in texts {
            match text.parse::<Config>() {
                Ok(config) => {
                    // The text before may have made it the value of something else.
                    let kept = config.password().is_some_and(|password| password.expose().contains(&secret));
                    prop_assert!(!kept || !format!("{config:?}").contains(&secret), "{}", text);
                }
                Err(error) => {
                    prop_assert!(!error.parameter().is_empty() && !error.expected().is_empty());
                    prop_assert!(!format!("{error} {error:?}").contains(&secret), "{}: {}", text, error);
                }
            }
        }
    }
}
