//! Who works on what: claims, leases, and how deep the queue is.
//!
//! A claim never reads the queue from end to end. It goes from workflow to workflow along the index of waiting tasks,
//! one seek for each, and takes from each only as many as it could use. A hundred thousand tasks of one workflow cost
//! the next no more than one does.

use std::collections::{BTreeMap, HashMap, VecDeque};

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::rows::{self, TASK_COLUMNS};
use crate::model::{Priority, TaskId, TaskState, Timestamp};
use crate::store::{Claim, Claimed, ClaimedTask, Left, QueueDepth, Result, StoreError};

/// When each workflow got a task for the last time, so that they take turns over many claims, too.
#[derive(Debug, Default)]
pub struct Turns {
    last: HashMap<String, u64>,
    taken: u64,
}

impl Turns {
    /// Workflows that are remembered; past that, all begin anew.
    const WORKFLOWS: usize = 10_000;

    fn of(&self, workflow: &str) -> u64 {
        self.last.get(workflow).copied().unwrap_or(0)
    }

    fn take(&mut self, workflow: &str) -> u64 {
        if self.last.len() >= Self::WORKFLOWS {
            self.last.clear();
        }
        self.taken += 1;
        self.last.insert(workflow.to_owned(), self.taken);
        self.taken
    }
}

/// The waiting tasks of one workflow, as far as a claim looks at them.
struct Line {
    workflow: String,
    running: usize,
    /// How many more may run.
    room: usize,
    turn: u64,
    due: VecDeque<TaskId>,
}

pub fn claim(connection: &Connection, turns: &mut Turns, claim: &Claim) -> Result<Claimed> {
    let workflows = waiting_workflows(connection)?;
    let mut lines: Vec<Line> = workflows
        .iter()
        .map(|workflow| Line {
            workflow: workflow.clone(),
            running: claim.running.get(workflow).copied().unwrap_or(0),
            room: claim.allowance.get(workflow).copied().unwrap_or(claim.otherwise),
            turn: turns.of(workflow),
            due: VecDeque::new(),
        })
        .collect();
    let mut tasks = Vec::new();
    for priority in [Priority::Immediate, Priority::Normal] {
        for line in &mut lines {
            let most = line.room.min(claim.limit - tasks.len());
            line.due = due(connection, &line.workflow, priority, claim.now, most)?;
        }
        while tasks.len() < claim.limit
            && let Some((line, task)) = next_in_turn(&mut lines)
        {
            line.running += 1;
            line.room -= 1;
            line.turn = turns.take(&line.workflow);
            tasks.push(lease(connection, task, claim)?);
        }
    }
    let mut next_due = None;
    for workflow in &workflows {
        next_due = [next_due, first_due_after(connection, workflow, claim.now)?].into_iter().flatten().min();
    }
    let left = if tasks.len() >= claim.limit {
        Left::Any
    } else {
        Left::Only(lines.into_iter().filter(|line| line.room == 0).map(|line| line.workflow).collect())
    };
    Ok(Claimed { tasks, next_due, left })
}

/// The next task of the workflow that has the fewest running, or that waited for its turn the longest.
fn next_in_turn(lines: &mut [Line]) -> Option<(&mut Line, TaskId)> {
    let line = lines.iter_mut().filter(|line| !line.due.is_empty()).min_by_key(|line| (line.running, line.turn))?;
    let task = line.due.pop_front()?;
    Some((line, task))
}

/// The workflows that have waiting tasks: one seek for each, not a scan.
fn waiting_workflows(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut next = connection.prepare_cached(
        "SELECT workflow FROM tasks INDEXED BY tasks_waiting
         WHERE state IN ('scheduled', 'queued', 'retrying') AND workflow > ?1 ORDER BY workflow LIMIT 1",
    )?;
    let mut workflows: Vec<String> = Vec::new();
    loop {
        let last = workflows.last().map_or("", String::as_str);
        match next.query_row([last], |row| row.get(0)).optional()? {
            Some(workflow) => workflows.push(workflow),
            None => return Ok(workflows),
        }
    }
}

/// The first tasks of a workflow whose time has come.
fn due(
    connection: &Connection,
    workflow: &str,
    priority: Priority,
    now: Timestamp,
    limit: usize,
) -> rusqlite::Result<VecDeque<TaskId>> {
    if limit == 0 {
        return Ok(VecDeque::new());
    }
    let mut statement = connection.prepare_cached(
        "SELECT id FROM tasks INDEXED BY tasks_waiting
         WHERE state IN ('scheduled', 'queued', 'retrying') AND workflow = ?1 AND priority = ?2 AND run_at <= ?3
         ORDER BY run_at, id LIMIT ?4",
    )?;
    statement.query_map(params![workflow, priority, now, rows::count(limit)], |row| row.get(0))?.collect()
}

fn first_due_after(connection: &Connection, workflow: &str, now: Timestamp) -> rusqlite::Result<Option<Timestamp>> {
    let mut statement = connection.prepare_cached(
        "SELECT run_at FROM tasks INDEXED BY tasks_waiting
         WHERE state IN ('scheduled', 'queued', 'retrying') AND workflow = ?1 AND priority = ?2 AND run_at > ?3
         ORDER BY run_at LIMIT 1",
    )?;
    let mut first = None;
    for priority in [Priority::Immediate, Priority::Normal] {
        let one = statement.query_row(params![workflow, priority, now], |row| row.get(0)).optional()?;
        first = [first, one].into_iter().flatten().min();
    }
    Ok(first)
}

/// Starts an attempt.
fn lease(connection: &Connection, task: TaskId, claim: &Claim) -> Result<ClaimedTask> {
    let mut start = connection.prepare_cached(
        "UPDATE tasks SET state = 'running', attempts = attempts + 1, owner = ?2, lease_started = ?3, lease_until = ?4
         WHERE id = ?1",
    )?;
    start.execute(params![task, claim.owner, claim.now, claim.lease_until])?;
    let mut begin = connection.prepare_cached(
        "UPDATE runs SET state = 'running', started_at = ?2
         WHERE id = (SELECT run FROM tasks WHERE id = ?1) AND state = 'pending'",
    )?;
    begin.execute(params![task, claim.now])?;
    claimed_task(connection, task)
}

fn claimed_task(connection: &Connection, id: TaskId) -> Result<ClaimedTask> {
    let sql = format!(
        "SELECT {TASK_COLUMNS} FROM tasks LEFT JOIN task_states ON task_states.task = tasks.id WHERE tasks.id = ?1"
    );
    let read = |row: &Row<'_>| Ok((rows::task(row)?, row.get("forgiven")?, row.get("lease_started")?));
    let (task, forgiven, lease_started) = connection.prepare_cached(&sql)?.query_row([id], read)?;
    let run = rows::load_run(connection, task.run)?
        .ok_or_else(|| StoreError::Broken(format!("the run {} of a task is missing", task.run)))?;
    Ok(ClaimedTask { task, run, forgiven, lease_started })
}

pub fn claim_lost(
    connection: &Connection,
    owner: &str,
    now: Timestamp,
    lease_until: Timestamp,
    limit: usize,
) -> Result<Vec<ClaimedTask>> {
    let mut lost = connection.prepare_cached(
        "SELECT id FROM tasks INDEXED BY tasks_running WHERE state = 'running' AND lease_until <= ?1
         ORDER BY lease_until LIMIT ?2",
    )?;
    let lost = lost.query_map(params![now, rows::count(limit)], |row| row.get(0))?;
    let lost = lost.collect::<rusqlite::Result<Vec<TaskId>>>()?;
    let mut take = connection.prepare_cached("UPDATE tasks SET owner = ?2, lease_until = ?3 WHERE id = ?1")?;
    lost.into_iter()
        .map(|task| {
            take.execute(params![task, owner, lease_until])?;
            claimed_task(connection, task)
        })
        .collect()
}

/// All leases are over: for when nobody can be working.
pub fn void_leases(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE tasks SET lease_until = 0, owner = NULL WHERE state = 'running'", []).map(drop)
}

pub fn renew(
    connection: &Connection,
    owner: &str,
    tasks: &[TaskId],
    lease_until: Timestamp,
) -> rusqlite::Result<Vec<TaskId>> {
    let mut prolong = connection
        .prepare_cached("UPDATE tasks SET lease_until = ?3 WHERE id = ?1 AND owner = ?2 AND state = 'running'")?;
    let mut kept = Vec::with_capacity(tasks.len());
    for task in tasks {
        if prolong.execute(params![task, owner, lease_until])? > 0 {
            kept.push(*task);
        }
    }
    Ok(kept)
}

pub fn release(connection: &Connection, owner: &str, tasks: &[TaskId]) -> rusqlite::Result<()> {
    let mut release = connection.prepare_cached(
        "UPDATE tasks SET state = CASE WHEN attempts - 1 > forgiven THEN 'retrying' ELSE 'queued' END,
           attempts = attempts - 1, owner = NULL, lease_started = NULL, lease_until = NULL
         WHERE id = ?1 AND owner = ?2 AND state = 'running'",
    )?;
    for task in tasks {
        release.execute(params![task, owner])?;
    }
    Ok(())
}

/// The queues of all workflows that have something in them.
pub fn depth(connection: &Connection, now: Timestamp) -> rusqlite::Result<Vec<QueueDepth>> {
    let mut queues = BTreeMap::<String, QueueDepth>::new();
    let mut waiting = connection.prepare_cached(
        "SELECT workflow, sum(run_at <= ?1), sum(run_at > ?1), min(run_at) FROM tasks INDEXED BY tasks_waiting
         WHERE state IN ('scheduled', 'queued', 'retrying') GROUP BY workflow",
    )?;
    let mut waiting = waiting.query([now])?;
    while let Some(row) = waiting.next()? {
        let queue = queues.entry(row.get(0)?).or_default();
        (queue.due, queue.later) = (unsigned(row, 1)?, unsigned(row, 2)?);
        queue.oldest_due = Some(row.get(3)?).filter(|oldest| *oldest <= now);
    }
    for (workflow, running) in counts(connection, "tasks_running", TaskState::Running)? {
        queues.entry(workflow).or_default().running = running;
    }
    for (workflow, dead) in counts(connection, "tasks_dead", TaskState::Dead)? {
        queues.entry(workflow).or_default().dead = dead;
    }
    Ok(queues.into_iter().map(|(workflow, queue)| QueueDepth { workflow, ..queue }).collect())
}

/// Tasks of each workflow in a state that has an index of its own.
fn counts(connection: &Connection, index: &str, state: TaskState) -> rusqlite::Result<Vec<(String, u64)>> {
    let sql = format!(
        "SELECT workflow, count(*) FROM tasks INDEXED BY {index} WHERE state = '{}' GROUP BY workflow",
        state.name()
    );
    let mut counts = connection.prepare_cached(&sql)?;
    counts.query_map([], |row| Ok((row.get(0)?, unsigned(row, 1)?)))?.collect()
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|value| value.max(0) as u64)
}
