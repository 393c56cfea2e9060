//! Forgetting what is old enough, a batch at a time, along the indexes of what ended when.

use rusqlite::{Connection, params};

use super::rows;
use crate::model::{MessageId, RunId, RunState, Timestamp};
use crate::store::{Result, Retention};

pub fn prune(connection: &Connection, retention: &Retention, batch: usize) -> Result<usize> {
    let mut forgotten = 0;
    if let Some(before) = retention.logs {
        forgotten += prune_logs(connection, before, batch - forgotten)?;
    }
    if let Some(before) = retention.runs {
        for state in [RunState::Completed, RunState::Cancelled] {
            forgotten += prune_runs(connection, state, before, batch - forgotten)?;
        }
    }
    if let Some(before) = retention.failed_runs {
        forgotten += prune_runs(connection, RunState::Failed, before, batch - forgotten)?;
    }
    if let Some(before) = retention.messages {
        forgotten += prune_messages(connection, before, batch - forgotten)?;
    }
    Ok(forgotten)
}

fn prune_logs(connection: &Connection, before: Timestamp, batch: usize) -> rusqlite::Result<usize> {
    let mut delete = connection.prepare_cached(
        "DELETE FROM logs WHERE attempt IN (
           SELECT attempt FROM logs INDEXED BY logs_by_time WHERE finished_at < ?1 ORDER BY finished_at LIMIT ?2)",
    )?;
    delete.execute(params![before, rows::count(batch)])
}

/// Tasks, attempts, outputs and logs go with their run. A run stays as long as one that repeats it is under way, which
/// may begin with what this one left.
fn prune_runs(connection: &Connection, state: RunState, before: Timestamp, batch: usize) -> rusqlite::Result<usize> {
    let mut old = connection.prepare_cached(
        "SELECT id, message FROM runs INDEXED BY runs_ended
         WHERE state = ?1 AND finished_at IS NOT NULL AND finished_at < ?2 AND NOT EXISTS (
           SELECT 1 FROM runs AS again INDEXED BY runs_by_origin
           WHERE again.retry_of = runs.id AND again.state IN ('pending', 'running'))
         ORDER BY finished_at LIMIT ?3",
    )?;
    let old = old.query_map(params![state, before, rows::count(batch)], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let old = old.collect::<rusqlite::Result<Vec<(RunId, Option<MessageId>)>>>()?;
    let mut delete = connection.prepare_cached("DELETE FROM runs WHERE id = ?1")?;
    let mut let_go = connection.prepare_cached(
        "UPDATE messages SET in_use = 0 WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM runs WHERE message = ?1)",
    )?;
    for (run, message) in &old {
        delete.execute([run])?;
        if let Some(message) = message {
            let_go.execute([message])?;
        }
    }
    Ok(old.len())
}

fn prune_messages(connection: &Connection, before: Timestamp, batch: usize) -> rusqlite::Result<usize> {
    let mut delete = connection.prepare_cached(
        "DELETE FROM messages WHERE seq IN (
           SELECT seq FROM messages INDEXED BY messages_unused WHERE in_use = 0 AND received_at < ?1
           ORDER BY received_at LIMIT ?2)
         RETURNING topic",
    )?;
    let topics = delete.query_map(params![before, rows::count(batch)], |row| row.get(0))?;
    let topics = topics.collect::<rusqlite::Result<Vec<String>>>()?;
    let mut count_down = connection.prepare_cached("UPDATE topics SET messages = messages - 1 WHERE topic = ?1")?;
    for topic in &topics {
        count_down.execute([topic])?;
    }
    connection.prepare_cached("DELETE FROM topics WHERE messages = 0")?.execute([])?;
    Ok(topics.len())
}
