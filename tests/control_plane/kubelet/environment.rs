//! The environment variables of a container.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

/// Directories of programs. PostgreSQL's image has its own directory on `PATH` too.
fn search_path() -> String {
    let inherited = std::env::var("PATH").unwrap_or_default();
    let standard = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    // The directory of the server programs, if `postgres` on PATH is a link to it.
    let postgres = std::env::split_paths(&inherited).map(|directory| directory.join("postgres"));
    let postgres = postgres.filter_map(|program| std::fs::canonicalize(program).ok()).next();
    match postgres.as_deref().and_then(std::path::Path::parent) {
        Some(directory) => format!("{}:{standard}", directory.display()),
        None => standard.to_owned(),
    }
}

/// Returns the variables of a container. Panics if the manifest uses a source of values that no container needs yet.
pub(super) fn variables(pod: &Pod, container: &Container) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::from([("PATH".to_owned(), search_path()), ("HOME".to_owned(), "/".to_owned())]);
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref())) {
            (Some(value), None) => expand(value, &variables),
            (None, Some(field)) if field.field_path == "metadata.name" => pod.metadata.name.clone().unwrap_or_default(),
            other => panic!("{}: unsupported value: {other:?}", variable.name),
        };
        variables.insert(variable.name.clone(), value);
    }
    variables
}

/// Replaces `$(NAME)` by the value of a variable. References to other names remain as they are.
pub(super) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    variables.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value))
}
