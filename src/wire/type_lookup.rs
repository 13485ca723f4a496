//! Recognizes the statements with which the driver looks up the definition of a type that it does not know. They only
//! read the catalog, so they are not part of the caller's work.

/// The texts of the driver's statements (tokio-postgres, `prepare.rs`), with fallbacks for old servers.
pub(super) const TEXTS: [&str; 5] = [
    "SELECT t.typname, t.typtype, t.typelem, r.rngsubtype, t.typbasetype, n.nspname, t.typrelid\n\
     FROM pg_catalog.pg_type t\n\
     LEFT OUTER JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid\n\
     INNER JOIN pg_catalog.pg_namespace n ON t.typnamespace = n.oid\n\
     WHERE t.oid = $1\n",
    "SELECT t.typname, t.typtype, t.typelem, NULL::OID, t.typbasetype, n.nspname, t.typrelid\n\
     FROM pg_catalog.pg_type t\n\
     INNER JOIN pg_catalog.pg_namespace n ON t.typnamespace = n.oid\n\
     WHERE t.oid = $1\n",
    "SELECT enumlabel\nFROM pg_catalog.pg_enum\nWHERE enumtypid = $1\nORDER BY enumsortorder\n",
    "SELECT enumlabel\nFROM pg_catalog.pg_enum\nWHERE enumtypid = $1\nORDER BY oid\n",
    "SELECT attname, atttypid\nFROM pg_catalog.pg_attribute\nWHERE attrelid = $1\nAND NOT attisdropped\n\
     AND attnum > 0\nORDER BY attnum\n",
];

/// Returns true if the text is one of the driver's look-ups.
pub(crate) fn is_type_lookup(text: &str) -> bool {
    TEXTS.contains(&text)
}

/// Maximum number of names. A shared connection prepares at most as many statements at the same time as it has places.
const MAX: usize = 1024;

/// The names of the statements that the driver has prepared for its type look-ups on a connection.
#[derive(Debug, Default)]
pub(super) struct TypeLookups(Vec<Vec<u8>>);

impl TypeLookups {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.0.iter().any(|lookup| lookup == name)
    }

    /// Applies a Parse message.
    pub(super) fn prepared(&mut self, name: &[u8], text: &[u8]) {
        self.0.retain(|lookup| lookup != name);
        if !name.is_empty() && TEXTS.iter().any(|lookup| lookup.as_bytes() == text) {
            // The driver keeps one statement for each text. Others belong to look-ups that were cancelled, or that run
            // at the same time for several callers of a connection.
            if self.0.len() == MAX {
                self.0.remove(0);
            }
            self.0.push(name.to_vec());
        }
    }
}
