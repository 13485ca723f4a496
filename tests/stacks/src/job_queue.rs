//! A background worker: takes jobs from a table with `SKIP LOCKED`, and waits for notifications of new ones.

use std::{future::Future, pin::pin, time::Duration};

use podpool::{Pool, Target, Transaction, TransactionOptions, tokio_postgres};
use tokio::{select, time::sleep};

/// Time after which the worker looks for jobs although it was not notified.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(200);

/// Does jobs until `shutdown` completes. The job in hand is finished first. Any number of workers can run at the same
/// time.
///
/// # Errors
///
/// Returns an error if the first connection for notifications cannot be opened.
pub async fn work(pool: Pool, shutdown: impl Future<Output = ()>) -> Result<u64, podpool::Error> {
    // The listener follows the primary. A gap in the notifications needs no special treatment here: like every item, it
    // makes the worker look for jobs.
    let mut new_jobs = pool.listen(Target::Primary, ["jobs"]).await?;
    let mut shutdown = pin!(shutdown);
    let mut done = 0;
    loop {
        let pause = match pool.transaction(TransactionOptions::default(), do_one).await {
            Ok(true) => {
                done += 1;
                Duration::ZERO
            }
            Ok(false) => POLL_INTERVAL,
            // If the response to the commit was lost, the table shows whether the job is done: no job is lost or done
            // twice.
            Err(error) => {
                eprintln!("a job failed and will be repeated: {error}");
                PAUSE
            }
        };
        select! {
            biased;
            () = &mut shutdown => return Ok(done),
            () = sleep(pause) => {}
            Some(_) = new_jobs.next(), if pause == POLL_INTERVAL => {}
        }
    }
}

/// Takes the oldest job that no other worker has taken, and does it. Returns false if there is none.
///
/// The job is deleted in the transaction that has its effect, so both are committed or neither is.
async fn do_one(transaction: Transaction) -> Result<bool, tokio_postgres::Error> {
    let take = "DELETE FROM jobs WHERE id = (SELECT id FROM jobs ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1)
                RETURNING item";
    let take = transaction.prepare_cached(take).await?;
    let Some(job) = transaction.query_opt(&take, &[]).await? else { return Ok(false) };
    let order = transaction.prepare_cached("INSERT INTO orders (item) VALUES ($1)").await?;
    transaction.execute(&order, &[&job.get::<_, &str>("item")]).await?;
    Ok(true)
}
