//! The forms in which work inserts rows.

use std::error::Error;

use bytes::BytesMut;
use podpool::{
    Client,
    tokio_postgres::{
        self,
        types::{IsNull, ToSql, Type, to_sql_checked},
    },
};

/// Definition of the table. It has no unique key, so that a write that is applied twice adds a second row.
pub const TABLE: &str = "CREATE TYPE mood AS ENUM ('fine'); \
                         CREATE TABLE written (id bigint NOT NULL, part int NOT NULL, mood mood); \
                         GRANT ALL ON written TO PUBLIC";

/// A value of the enum type, which the driver looks up on each new connection.
#[derive(Debug)]
pub struct Mood;

impl ToSql for Mood {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(b"fine");
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        ty.name() == "mood"
    }

    to_sql_checked!();
}

/// A form of work.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Form {
    Simple,
    Prepared,
    Enum,
    Transaction,
    Sequence,
    Join,
    ReversedJoin,
    CommitAndChain,
    Batch,
    TransactionInBatch,
}

impl Form {
    pub const ALL: [Self; 10] = [
        Self::Simple,
        Self::Prepared,
        Self::Enum,
        Self::Transaction,
        Self::Sequence,
        Self::Join,
        Self::ReversedJoin,
        Self::CommitAndChain,
        Self::Batch,
        Self::TransactionInBatch,
    ];

    /// Returns the number of rows that the work inserts.
    pub fn rows(self) -> usize {
        match self {
            Self::Simple | Self::Prepared | Self::Enum => 1,
            _ => 2,
        }
    }

    /// Inserts the rows of a write.
    pub async fn write(self, mut client: Client, id: i64) -> Result<(), tokio_postgres::Error> {
        let [first, second] = [0, 1].map(|part| format!("INSERT INTO written VALUES ({id}, {part})"));
        match self {
            Self::Simple => client.batch_execute(&first).await,
            Self::Prepared => client.execute("INSERT INTO written VALUES ($1, 0)", &[&id]).await.map(drop),
            Self::Enum => {
                let sql = "INSERT INTO written VALUES ($1, 0, $2)";
                client.execute(sql, &[&id, &Mood]).await.map(drop)
            }
            Self::Transaction => {
                let transaction = client.transaction().await?;
                transaction.execute(&first, &[]).await?;
                transaction.batch_execute(&second).await?;
                transaction.commit().await
            }
            Self::Sequence => {
                client.batch_execute(&first).await?;
                client.batch_execute(&second).await
            }
            Self::Join => tokio::try_join!(client.batch_execute(&first), client.execute(&second, &[])).map(drop),
            Self::ReversedJoin => {
                tokio::try_join!(client.execute(&second, &[]), client.batch_execute(&first)).map(drop)
            }
            Self::CommitAndChain => {
                client.batch_execute(&format!("BEGIN; {first}; COMMIT AND CHAIN; {second}; COMMIT")).await
            }
            Self::Batch => client.batch_execute(&format!("{first}; {second}")).await,
            Self::TransactionInBatch => client.batch_execute(&format!("BEGIN; {first}; COMMIT; {second}")).await,
        }
    }
}
