//! Diesel's own pool, with connections that podpool opens. podpool closes them when their server is no longer the
//! primary, so Diesel's pool cannot keep a connection to a former one.

use diesel::ConnectionError;
use diesel_async::{
    AsyncPgConnection,
    pooled_connection::{
        AsyncDieselConnectionManager, ManagerConfig,
        deadpool::{BuildError, Pool as DieselPool},
    },
};
use futures_util::FutureExt as _;
use podpool::{OwnedConnection, Pool, Target};

diesel::table! {
    orders (id) {
        id -> Int8,
        item -> Text,
        count -> Int4,
    }
}

/// Creates a pool of connections to the primary. podpool's `pool_size` must be at least `max_size`, because these
/// connections count in it.
pub fn diesel_pool(pool: &Pool, max_size: usize) -> Result<DieselPool<AsyncPgConnection>, BuildError> {
    let pool = pool.clone();
    // By default, Diesel's pool checks each connection with a statement before it hands it out, and replaces those that
    // podpool has closed.
    let mut config = ManagerConfig::default();
    config.custom_setup = Box::new(move |_| {
        let pool = pool.clone();
        async move {
            let opened = pool.connect_owned(Target::Primary).await;
            let OwnedConnection { client, .. } =
                opened.map_err(|error| ConnectionError::BadConnection(error.to_string()))?;
            AsyncPgConnection::try_from(client).await
        }
        .boxed()
    });
    let manager = AsyncDieselConnectionManager::new_with_config("podpool chooses the server", config);
    DieselPool::builder(manager).max_size(max_size).build()
}
