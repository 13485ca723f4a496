//! Deserialization of a [`Config`] from a map of parameters or from a connection string.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use super::{Config, message, setting::Settings};
use crate::error::ConfigError;

/// Deserializes a map of [parameters](super#parameters), or a [URL or keyword/value string](super#connection-strings).
/// Environment variables are ignored.
///
/// A value in the map is a string or a whole number. `outlier_success_rate` may be any number, and `nameservers` a list
/// of strings. A null value is equivalent to a missing parameter. Quote a password that consists of digits, because
/// some file formats parse `0123` as a number.
///
/// `Config` does not implement `Serialize`, because the output would contain the password. Errors of this crate never
/// contain a password, but the parsers of some file formats quote the affected line of the file in their own errors.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// #[derive(serde::Deserialize)]
/// struct Settings {
///     database: podpool::Config,
/// }
///
/// let settings: Settings = serde_json::from_str(
///     r#"{ "database": { "host": "postgresql-svc.k8s-training.svc.cluster.local", "user": "app", "pool_size": 4 } }"#,
/// )?;
/// assert_eq!(settings.database.limits().pool_size, 4);
/// # Ok(())
/// # }
/// ```
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ConfigVisitor)
    }
}

/// The visitor for a configuration, which is a map or a string.
struct ConfigVisitor;

impl<'de> Visitor<'de> for ConfigVisitor {
    type Value = Config;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of parameters, a URL or a keyword/value string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Config, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Config, E> {
        Zeroizing::new(text).parse().map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Config, A::Error> {
        let mut settings = Settings::new("a password quoted as the file format requires");
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value::<Value>()?;
            let float = value.kind == Kind::Float && name != "outlier_success_rate";
            let list = value.kind == Kind::List && name != "nameservers";
            if float || list {
                let expected = "a string or a whole number";
                return Err(A::Error::custom(ConfigError::new(message::excerpt(&name), expected)));
            }
            if value.kind != Kind::Null {
                settings.add(&name, value.text, false).map_err(A::Error::custom)?;
            }
        }
        settings.into_config().map_err(A::Error::custom)
    }
}

/// A parameter's value, converted to text. It may be a password, so this type does not implement `Debug`.
struct Value {
    text: Zeroizing<String>,
    kind: Kind,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Null,
    Text,
    Float,
    List,
}

impl Value {
    fn new<E>(text: impl Into<String>, kind: Kind) -> Result<Self, E> {
        Ok(Self { text: Zeroizing::new(text.into()), kind })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a number")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Value::new(text, Kind::Text)
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        Value::new(text, Kind::Text)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Value::new(number.to_string(), Kind::Text)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Value::new(number.to_string(), Kind::Text)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Value::new(number.to_string(), Kind::Float)
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Value::new("", Kind::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element::<String>()? {
            texts.push(text);
        }
        Value::new(texts.join(","), Kind::List)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn deserialize(value: serde_json::Value) -> Result<Config, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn map_url_and_keyword_value_string_are_equivalent() {
        let map = json!({
            "host": "db.svc", "port": 5433, "user": "app", "password": "p@ss", "dbname": null, "pool_size": "4",
            "acquire_timeout": "250ms", "outlier_success_rate": 0.5, "nameservers": ["10.0.0.1", "10.0.0.2:5353"],
            "gssencmode": "disable",
        });
        let url = json!(
            "postgres://app:p%40ss@db.svc:5433/?pool_size=4&acquire_timeout=250ms&outlier_success_rate=0.5\
             &nameservers=10.0.0.1,10.0.0.2:5353"
        );
        let pairs = json!(
            "host=db.svc port=5433 user=app password=p@ss pool_size=4 acquire_timeout=250ms outlier_success_rate=0.5 \
             nameservers=10.0.0.1,10.0.0.2:5353"
        );
        let [map, url, pairs] = [map, url, pairs].map(|value| deserialize(value).unwrap());
        assert_eq!(format!("{map:?}"), format!("{url:?}"));
        assert_eq!(format!("{map:?}"), format!("{pairs:?}"));
        assert!(map.password().unwrap().is(url.password().unwrap()));
    }

    #[test]
    fn errors_name_the_parameter_and_the_problem() {
        for (value, expected) in [
            (json!({ "host": "db", "poolsize": 4 }), "the closest known parameter is `pool_size`"),
            (json!({ "host": "db", "pool_size": 4.5 }), "parameter `pool_size`: expected a string or a whole number"),
            (json!({ "host": "db", "pool_size": -4 }), "a whole number, got `-4`"),
            (json!({ "host": "db", "pool_size": [4] }), "expected a string"),
            (json!({ "host": ["db"] }), "parameter `host`: expected a string or a whole number"),
            (json!({ "pool_size": 4 }), "got none"),
            (json!({ "host": "db", "service": "shop" }), "unsupported parameter `service`"),
            (json!({ "host": "db", "password": "x", "password_file": "y" }), "`password` is set too"),
            (json!(5), "a map of parameters, a URL or a keyword/value string"),
            (json!("postgres://db/?pool_size=x"), "a whole number"),
        ] {
            let text = value.to_string();
            let error = deserialize(value).expect_err(&text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        let twice = serde_json::from_str::<Config>(r#"{ "host": "db", "host": "db" }"#).unwrap_err();
        assert!(twice.to_string().contains("duplicate parameter"), "{twice}");
    }

    proptest! {
        #[test]
        fn errors_and_debug_output_do_not_reveal_a_password(secret in "Zq[a-z]{6}Kx", number in 100_000_000u32..) {
            let values = [
                json!({ "host": "db", "password": secret, "pool_size": "x" }),
                json!({ "host": "db", "password": [secret] }),
                json!({ "host": "db", "password": { "a": 1 }, "user": secret }),
                json!({ "host": "db", "password": format!("{secret}\0") }),
                json!({ "host": "db", "password": f64::from(number) / 7.0 }),
                json!(format!("postgres://app:{secret}@@db")),
                json!(format!("host=db password=a {secret}")),
            ];
            for value in values {
                let text = value.to_string();
                let shown = match deserialize(value).map(|config| (config.validate(), config)) {
                    Ok((valid, config)) => format!("{config:?} {valid:?}"),
                    Err(error) => error,
                };
                prop_assert!(!shown.contains(&secret) && !shown.contains(&number.to_string()), "{}: {}", text, shown);
            }
        }

        #[test]
        fn accepts_any_password(password in "[^\0]+", digits: u64) {
            let config = deserialize(json!({ "host": "db", "password": password })).unwrap();
            prop_assert_eq!(config.password().unwrap().expose(), &password);
            let config = deserialize(json!({ "host": "db", "password": digits })).unwrap();
            prop_assert_eq!(config.password().unwrap().expose(), digits.to_string());
        }
    }
}
