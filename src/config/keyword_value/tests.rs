//! Tests parsing of keyword/value strings, and that errors do not reveal a password.

use proptest::prelude::*;

use super::*;
use crate::Config;

fn parsed(text: &str) -> Config {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[track_caller]
fn assert_rejected(text: &str, parameter: &str, expected: &str) {
    let error = text.parse::<Config>().and_then(|config| config.validate()).expect_err(text);
    assert_eq!(error.parameter(), parameter, "{text}: {error}");
    assert!(error.to_string().contains(expected), "{text}: {error}");
}

#[test]
fn accepts_optional_spaces_quotes_and_escapes() {
    for text in [
        r"host=db port=5433 user=app password=it\'s dbname=shop application_name='web shop'",
        "\t host = db\n port = '5433' user= 'app' password ='it\\'s' dbname=shop application_name=web\\ shop  ",
        r"host='db'port='5433'user='app'password='it\'s'dbname='shop'application_name='web shop'",
        r"host='d\b' port=\5433 user=app password=it's dbname=shop application_name='web\ shop'",
    ] {
        let config = parsed(text);
        assert_eq!(config.host().to_string(), "db");
        assert_eq!((config.port(), config.user(), config.dbname()), (5433, "app", "shop"));
        assert_eq!(config.password().unwrap().expose(), "it's");
        assert_eq!(config.application_name(), Some("web shop"));
    }
}

#[test]
fn an_empty_quoted_value_is_equivalent_to_a_missing_value() {
    let config = parsed("host=db user=app password='' dbname=''");
    assert!(config.password().is_none());
    assert_eq!(config.dbname(), "app");
    // As in libpq, spaces after `=` are skipped, and the next token is the value.
    assert_rejected("host= port=5", "host", "got `port=5`");
}

#[test]
fn drops_a_trailing_backslash() {
    assert_eq!(parsed(r"host=db user=app\").user(), "app");
    assert_rejected(r"host=db user='app\'", "conninfo", "closing single quote");
}

#[test]
fn errors_name_the_parameter_and_the_problem() {
    assert_rejected("", "host", "got none");
    assert_rejected("db.svc", "conninfo", "got `db.svc`");
    assert_rejected("host=db user", "conninfo", "got `user`");
    assert_rejected("host=db user name=app", "conninfo", "got `user`");
    assert_rejected("host=db =app", "conninfo", "`name=value`");
    assert_rejected("host=db user='app", "conninfo", "closing single quote");
    assert_rejected("host=db user=\0", "conninfo", "zero byte");
    assert_rejected("host=db poolsize=5", "poolsize", "the closest known parameter is `pool_size`");
    assert_rejected("host=db port=5 port=6", "port", "duplicate parameter");
    assert_rejected("host=db port=x", "port", "from 1 to 65535, got `x`");
    assert_rejected("host=a,b port=1,2,3", "port", "each of the 2 hosts");
    assert_rejected("host=@tmp", "host", "abstract");
    assert_rejected("host=db password=x password_file=/y", "password_file", "`password` is set too");
}

#[test]
fn errors_do_not_reveal_a_password() {
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
    // An error may suggest a known parameter name, and may repeat text that precedes `password`.
    assert_rejected("host=db password=x poolsize=5", "password", "the closest known parameter is `pool_size`");
    assert_rejected("host=db poolsize=5 password=x", "poolsize", "the closest known parameter is `pool_size`");
    assert_rejected(
        "host=db password_file=/run/x poolsize=5",
        "poolsize",
        "the closest known parameter is `pool_size`",
    );
}

proptest! {
    #[test]
    fn parses_any_quoted_value(user in "[^\0]+", password in "[^\0]+", options in "[^\0]+", gap in "[ \t\n]{0,2}") {
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
    fn url_and_keyword_value_string_are_equivalent(
        user in "[^\0]+",
        password in "[^\0]+",
        dbname in "[^\0]+",
        port in 1u16..,
    ) {
        use crate::config::percent::encode;
        let url = format!("postgres://{}:{}@db:{port}/{}", encode(&user), encode(&password), encode(&dbname));
        let [user, password, dbname] = [&user, &password, &dbname].map(|value| quote(value));
        let pairs = format!("host=db port={port} user={user} password={password} dbname={dbname}");
        let (url, pairs): (Config, Config) = (url.parse().unwrap(), pairs.parse().unwrap());
        prop_assert_eq!(format!("{url:?}"), format!("{pairs:?}"));
        prop_assert!(url.password().unwrap().is(pairs.password().unwrap()));
    }

    #[test]
    fn never_panics_and_never_reveals_a_password(
        before in "[a-z_='\\\\ ]{0,30}",
        secret in "Zq[a-z]{6}Kx",
        after in "[a-z_='\\\\ ]{0,30}",
        any in any::<String>(),
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
                    // Depending on `before`, the secret may be the value of another parameter, which `Debug` output may
                    // show.
                    let kept = config.password().is_some_and(|password| password.expose().contains(&secret));
                    prop_assert!(!kept || !format!("{config:?}").contains(&secret), "{}", text);
                }
                Err(error) => {
                    prop_assert!(!error.parameter().is_empty() && !error.problem().is_empty());
                    prop_assert!(!format!("{error} {error:?}").contains(&secret), "{}: {}", text, error);
                }
            }
        }
    }
}
