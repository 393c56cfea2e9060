//! How runs go on and end: settling, cancelling, sending on their way again.
//!
//! A run counts its open tasks. Whatever changes the state of a task changes the count in the same transaction, and the
//! run has ended when it comes to zero.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::intake;
use super::rows::{self, Json};
use crate::model::{RunId, RunState, TaskId, TaskState, Timestamp};
use crate::store::{Cancellation, Redrive, Result, Settled, Settlement, Then};

pub fn settle(connection: &Connection, settlement: &Settlement) -> Result<Settled> {
    let Some((run, workflow, step)) = end_lease(connection, settlement)? else {
        if take_back_cancelled(connection, settlement)? {
            insert_attempt(connection, settlement)?;
        }
        return Ok(Settled::LeaseLost);
    };
    insert_attempt(connection, settlement)?;
    if settlement.keep_cursor
        && let Some(output) = &settlement.output
    {
        keep_cursor(connection, &workflow, &step, output)?;
    }
    let opened = match &settlement.then {
        Then::Next { tasks, .. } => {
            intake::insert_tasks(connection, tasks, settlement.lease.as_ref())?;
            rows::count(intake::open(tasks)) - 1
        }
        Then::Retry { .. } => return Ok(Settled::Open),
        Then::Dead => {
            note_failure(connection, run, settlement)?;
            -1
        }
        Then::Cancelled => -1,
    };
    if opened < 0
        && let Some(state) = finish(connection, run, settlement.attempt.finished_at)?
    {
        return Ok(Settled::Finished(state));
    }
    if opened != 0 {
        change_open_tasks(connection, run, opened)?;
    }
    Ok(Settled::Open)
}

/// Moves the task on, if it is the owner's and this is its attempt: the run, the workflow and the step.
fn end_lease(connection: &Connection, settlement: &Settlement) -> rusqlite::Result<Option<(RunId, String, String)>> {
    let (state, run_at) = match &settlement.then {
        Then::Next { state, .. } => (*state, None),
        Then::Retry { run_at } => (TaskState::Retrying, Some(*run_at)),
        Then::Dead => (TaskState::Dead, None),
        Then::Cancelled => (TaskState::Cancelled, None),
    };
    let mut statement = connection.prepare_cached(
        "UPDATE tasks SET state = ?4, run_at = coalesce(?5, run_at), owner = NULL, lease_started = NULL, lease_until = NULL
         WHERE id = ?1 AND owner = ?2 AND attempts = ?3 AND state = 'running' RETURNING run, workflow, step",
    )?;
    let attempt = &settlement.attempt;
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    statement.query_row(params![attempt.task, settlement.owner, attempt.number, state, run_at], read).optional()
}

/// True, once: the task was cancelled while this attempt at it was under way.
fn take_back_cancelled(connection: &Connection, settlement: &Settlement) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(
        "UPDATE tasks SET owner = NULL, lease_started = NULL, lease_until = NULL
         WHERE id = ?1 AND owner = ?2 AND attempts = ?3 AND state = 'cancelled'",
    )?;
    Ok(statement.execute(params![settlement.attempt.task, settlement.owner, settlement.attempt.number])? > 0)
}

fn insert_attempt(
    connection: &Connection,
    Settlement { attempt, output, log, .. }: &Settlement,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO attempts (id, task, number, started_at, finished_at, outcome, cpu_us, heap, buffers, failure)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    let key = statement.insert(params![
        attempt.id,
        attempt.task,
        attempt.number,
        attempt.started_at,
        attempt.finished_at,
        attempt.outcome,
        rows::count(attempt.usage.cpu_us),
        rows::count(attempt.usage.heap),
        rows::count(attempt.usage.buffers),
        attempt.failure.as_ref().map(Json),
    ])?;
    if let Some(output) = output {
        let mut statement = connection.prepare_cached("INSERT INTO outputs (attempt, output) VALUES (?1, ?2)")?;
        statement.execute(params![key, output])?;
    }
    if log.is_empty() {
        return Ok(());
    }
    let mut statement =
        connection.prepare_cached("INSERT INTO logs (attempt, finished_at, log) VALUES (?1, ?2, ?3)")?;
    statement.execute(params![key, attempt.finished_at, log])?;
    Ok(())
}

fn keep_cursor(connection: &Connection, workflow: &str, step: &str, output: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO cursors (workflow, step, output) VALUES (?1, ?2, ?3)
         ON CONFLICT (workflow, step) DO UPDATE SET output = excluded.output",
    )?;
    statement.execute([workflow, step, output]).map(drop)
}

pub fn cursor(connection: &Connection, workflow: &str, step: &str) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare_cached("SELECT output FROM cursors WHERE workflow = ?1 AND step = ?2")?;
    statement.query_row([workflow, step], |row| row.get(0)).optional()
}

/// The run keeps the first failure that nothing handled.
fn note_failure(connection: &Connection, run: RunId, settlement: &Settlement) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("UPDATE runs SET failure = coalesce(failure, ?2) WHERE id = ?1")?;
    statement.execute(params![run, settlement.attempt.failure.as_ref().map(Json)]).map(drop)
}

fn change_open_tasks(connection: &Connection, run: RunId, by: i64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("UPDATE runs SET open_tasks = open_tasks + ?2 WHERE id = ?1")?;
    statement.execute(params![run, by]).map(drop)
}

/// Ends the run with the last of its open tasks; None: it has others.
fn finish(connection: &Connection, run: RunId, now: Timestamp) -> rusqlite::Result<Option<RunState>> {
    // A failure that was cleared, as someone sent another task of the run on its way again, is still that of the tasks
    // that stayed dead.
    let mut finish = connection.prepare_cached(
        "UPDATE runs SET open_tasks = 0, finished_at = ?2,
           state = (SELECT CASE WHEN max(state = 'dead') THEN 'failed' WHEN max(state = 'cancelled') THEN 'cancelled'
             ELSE 'completed' END FROM tasks WHERE run = ?1),
           failure = coalesce(failure, (
             SELECT attempts.failure FROM tasks JOIN attempts ON attempts.task = tasks.id
             WHERE tasks.run = ?1 AND tasks.state = 'dead' AND attempts.failure IS NOT NULL
             ORDER BY attempts.seq DESC LIMIT 1))
         WHERE id = ?1 AND open_tasks = 1 RETURNING state",
    )?;
    finish.query_row(params![run, now], |row| row.get(0)).optional()
}

pub fn cancel(connection: &Connection, run: RunId, now: Timestamp) -> Result<Cancellation> {
    let Some(state) = connection
        .prepare_cached("SELECT state FROM runs WHERE id = ?1")?
        .query_row([run], |row| row.get::<_, RunState>(0))
        .optional()?
    else {
        return Ok(Cancellation::NotFound);
    };
    if state.is_final() {
        return Ok(Cancellation::AlreadyEnded(state));
    }
    let mut running = connection.prepare_cached("SELECT id FROM tasks WHERE run = ?1 AND state = 'running'")?;
    let running = running.query_map([run], |row| row.get(0))?.collect::<rusqlite::Result<Vec<TaskId>>>()?;
    // Dead tasks, too: nobody has to look after them any more.
    let mut tasks = connection.prepare_cached(
        "UPDATE tasks SET state = 'cancelled'
         WHERE run = ?1 AND state IN ('scheduled', 'queued', 'retrying', 'running', 'dead')",
    )?;
    tasks.execute([run])?;
    let mut end = connection
        .prepare_cached("UPDATE runs SET state = 'cancelled', finished_at = ?2, open_tasks = 0 WHERE id = ?1")?;
    end.execute(params![run, now])?;
    Ok(Cancellation::Cancelled { running })
}

pub fn redrive(connection: &Connection, redrive: &Redrive, now: Timestamp) -> Result<usize> {
    let dead = dead_tasks(connection, redrive)?;
    let mut queue = connection.prepare_cached(
        "UPDATE tasks SET state = 'queued', run_at = ?2, forgiven = attempts WHERE id = ?1 RETURNING run",
    )?;
    let mut reopen = connection.prepare_cached(
        "UPDATE runs SET state = 'running', finished_at = NULL, failure = NULL, open_tasks = open_tasks + 1 WHERE id = ?1",
    )?;
    for task in &dead {
        let run: RunId = queue.query_row(params![task, now], |row| row.get(0))?;
        reopen.execute([run])?;
    }
    Ok(dead.len())
}

fn dead_tasks(connection: &Connection, redrive: &Redrive) -> rusqlite::Result<Vec<TaskId>> {
    // The narrowest condition first: each has an index.
    let source = match redrive {
        Redrive { task: Some(_), .. } => "tasks WHERE id = ?1",
        Redrive { run: Some(_), .. } => "tasks INDEXED BY tasks_by_run WHERE run = ?2",
        Redrive { workflow: Some(_), .. } => "tasks INDEXED BY tasks_dead WHERE workflow = ?3",
        _ => "tasks INDEXED BY tasks_dead WHERE true",
    };
    let sql = format!(
        "SELECT id FROM {source} AND state = 'dead' AND (?1 IS NULL OR id = ?1) AND (?2 IS NULL OR run = ?2)
           AND (?3 IS NULL OR workflow = ?3) LIMIT ?4"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let parameters = params![redrive.task, redrive.run, redrive.workflow, rows::count(redrive.limit)];
    statement.query_map(parameters, |row| row.get(0))?.collect()
}
