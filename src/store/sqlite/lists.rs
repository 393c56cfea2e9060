//! Lists, page by page, newest first.
//!
//! A list walks along an index and stops when its page is full, so that the length of the list does not matter. Conditions
//! that have no index are tried on one item after the other, and how many are tried for one page is bounded: by number,
//! by time, and by the size of what was found. A page that stops early has fewer items than were asked for, or none, and
//! says where to go on.

use std::time::{Duration, Instant};

use aho_corasick::AhoCorasick;
use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params_from_iter};

use super::rows::{self, ATTEMPT_COLUMNS, MESSAGE_COLUMNS, TASK_COLUMNS};
use crate::model::{
    Attempt, AttemptId, Message, MessageId, Run, RunId, RunState, Task, TaskId, TaskInput, TaskState, Timestamp,
};
use crate::store::{
    MessageFilter, Page, PageRequest, Result, RunDetail, RunFilter, StoreError, TaskFilter, TopicSummary,
};

/// What one page may look at.
const MOST_CANDIDATES: usize = 20_000;
const MOST_TIME: Duration = Duration::from_millis(300);
const MOST_BYTES: usize = 16 << 20;

/// An id tells the time by the clock that made it. How far that may be from the time written in the row.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// What a candidate turned out to be.
enum Candidate<T> {
    Match { item: T, bytes: usize },
    Other,
}

/// Takes candidates until the page is full, or has taken too long.
fn page<T, Id: Copy>(
    limit: usize,
    mut candidates: impl Iterator<Item = rusqlite::Result<Id>>,
    mut examine: impl FnMut(Id) -> Result<Candidate<T>>,
) -> Result<Page<T, Id>> {
    let started = Instant::now();
    let (mut items, mut bytes, mut last) = (Vec::new(), 0, None);
    for tried in 0.. {
        let stop = items.len() >= limit
            || tried >= MOST_CANDIDATES
            || bytes >= MOST_BYTES
            || (tried > 0 && started.elapsed() >= MOST_TIME);
        let Some(id) = candidates.next().transpose()? else { break };
        if stop {
            return Ok(Page { items, next: last });
        }
        if let Candidate::Match { item, bytes: more } = examine(id)? {
            items.push(item);
            bytes += more;
        }
        last = Some(id);
    }
    Ok(Page { items, next: None })
}

/// The range of ids that a list is about: from `from`, before `before`.
struct Range {
    from: [u8; 16],
    before: [u8; 16],
}

impl Range {
    fn new(after: Option<&[u8; 16]>, since: Option<Timestamp>, until: Option<Timestamp>) -> Self {
        let before = until.map_or([0xff; 16], |until| first_id(until.saturating_add(CLOCK_SLACK)));
        Self {
            from: since.map_or([0; 16], |since| first_id(since.saturating_sub(CLOCK_SLACK))),
            before: after.map_or(before, |after| before.min(*after)),
        }
    }
}

/// The smallest id of this time: a UUID of version 7 begins with the milliseconds.
fn first_id(time: Timestamp) -> [u8; 16] {
    let millis = (time.as_micros().max(0) as u64) / 1000;
    let mut id = [0; 16];
    id[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    id
}

fn within(time: Timestamp, since: Option<Timestamp>, until: Option<Timestamp>) -> bool {
    since.is_none_or(|since| since <= time) && until.is_none_or(|until| time < until)
}

/// A text looked for, whatever its case.
struct Search(AhoCorasick);

impl Search {
    fn new(text: Option<&str>) -> Result<Option<Self>> {
        let search = |text| AhoCorasick::builder().ascii_case_insensitive(true).build([text]).map(Self);
        text.map(search)
            .transpose()
            .map_err(|error| StoreError::Broken(format!("cannot search for this text: {error}")))
    }

    fn finds(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

/// Where the candidates come from: one or several stretches of an index, each sorted by id, merged.
pub struct Source<'a> {
    table: &'static str,
    /// A condition for each stretch; `?3` is the parameter.
    stretches: Vec<String>,
    parameter: Option<&'a dyn ToSql>,
}

impl Source<'_> {
    /// `?1` and `?2` are the range of ids.
    pub fn statement(&self) -> String {
        let select =
            |condition: &String| format!("SELECT id FROM {} WHERE id < ?1 AND id >= ?2 AND {condition}", self.table);
        let selects: Vec<String> = self.stretches.iter().map(select).collect();
        format!("{} ORDER BY id DESC", selects.join(" UNION ALL "))
    }

    fn walk<Id: FromSql, T>(
        &self,
        connection: &Connection,
        range: &Range,
        read: impl FnOnce(&mut dyn Iterator<Item = rusqlite::Result<Id>>) -> Result<T>,
    ) -> Result<T> {
        let sql = self.statement();
        let mut statement = connection.prepare_cached(&sql)?;
        let range: [&dyn ToSql; 2] = [&range.before, &range.from];
        let parameters = range.into_iter().chain(self.parameter);
        let mut ids = statement.query_map(params_from_iter(parameters), |row| row.get(0))?;
        read(&mut ids)
    }
}

fn equals_state(name: &str) -> String {
    format!("state = '{name}'")
}

pub fn runs(connection: &Connection, filter: &RunFilter, request: &PageRequest<RunId>) -> Result<Page<Run, RunId>> {
    let search = Search::new(filter.text.as_deref())?;
    let range = Range::new(request.after.as_ref().map(RunId::as_bytes), filter.since, filter.until);
    run_source(filter).walk(connection, &range, |ids| {
        page(request.limit, ids, |id| {
            let Some(run) = rows::load_run(connection, id)? else { return Ok(Candidate::Other) };
            let matches = (filter.states.is_empty() || filter.states.contains(&run.state))
                && filter.workflow.as_ref().is_none_or(|workflow| *workflow == run.workflow)
                && filter.trigger.as_ref().is_none_or(|trigger| Some(trigger) == run.trigger.as_ref())
                && within(run.created_at, filter.since, filter.until)
                && search.as_ref().map_or(Ok(true), |search| run_contains(connection, &run, search))?;
            Ok(if matches { Candidate::Match { item: run, bytes: 0 } } else { Candidate::Other })
        })
    })
}

pub fn run_source(filter: &RunFilter) -> Source<'_> {
    let every = RunState::ALL.iter().filter(|state| filter.states.is_empty() || filter.states.contains(state));
    let states = every.map(|state| equals_state(state.name()));
    let (stretches, parameter): (Vec<String>, Option<&dyn ToSql>) = match (&filter.message, &filter.workflow) {
        (Some(message), _) => (vec!["message = ?3".into()], Some(message)),
        (None, Some(workflow)) => (states.map(|state| format!("workflow = ?3 AND {state}")).collect(), Some(workflow)),
        (None, None) if filter.states.is_empty() => (vec!["true".into()], None),
        (None, None) => (states.collect(), None),
    };
    Source { table: "runs", stretches, parameter }
}

fn run_contains(connection: &Connection, run: &Run, search: &Search) -> rusqlite::Result<bool> {
    let failure = run.failure.as_ref();
    if failure.is_some_and(|failure| search.finds(&failure.class) || search.finds(&failure.message))
        || search.finds(&run.id.to_string())
    {
        return Ok(true);
    }
    let Some(message) = run.message else { return Ok(false) };
    let mut data = connection.prepare_cached("SELECT data FROM messages WHERE id = ?1")?;
    let found = data.query_row([message], |row| Ok(search.finds(row.get_ref(0)?.as_str()?))).optional()?;
    Ok(found.unwrap_or(false))
}

pub fn run(connection: &Connection, id: RunId) -> Result<Option<RunDetail>> {
    let Some(run) = rows::load_run(connection, id)? else { return Ok(None) };
    let sql = format!(
        "SELECT {TASK_COLUMNS} FROM tasks LEFT JOIN task_states ON task_states.task = tasks.id
         WHERE tasks.run = ?1 ORDER BY tasks.id"
    );
    let mut tasks = connection.prepare_cached(&sql)?;
    let tasks = tasks.query_map([id], rows::task)?.collect::<rusqlite::Result<Vec<Task>>>()?;
    let sql = format!("SELECT {ATTEMPT_COLUMNS} FROM attempts WHERE task = ?1 ORDER BY number");
    let mut attempts = connection.prepare_cached(&sql)?;
    let with_attempts = |task: Task| {
        let attempts = attempts.query_map([task.id], rows::attempt)?.collect::<rusqlite::Result<Vec<Attempt>>>()?;
        Ok((task, attempts))
    };
    let tasks = tasks.into_iter().map(with_attempts).collect::<Result<_>>()?;
    Ok(Some(RunDetail { run, tasks }))
}

pub fn tasks(
    connection: &Connection,
    filter: &TaskFilter,
    request: &PageRequest<TaskId>,
) -> Result<Page<Task, TaskId>> {
    let range = Range::new(request.after.as_ref().map(TaskId::as_bytes), None, None);
    task_source(filter).walk(connection, &range, |ids| {
        page(request.limit, ids, |id| {
            let Some(task) = task(connection, id)? else { return Ok(Candidate::Other) };
            let matches = (filter.states.is_empty() || filter.states.contains(&task.state))
                && filter.workflow.as_ref().is_none_or(|workflow| *workflow == task.workflow)
                && filter.step.as_ref().is_none_or(|step| *step == task.step);
            let bytes = if let TaskInput::State(state) = &task.input { state.len() } else { 0 };
            Ok(if matches { Candidate::Match { item: task, bytes } } else { Candidate::Other })
        })
    })
}

pub fn task_source(filter: &TaskFilter) -> Source<'_> {
    let every = || TaskState::ALL.iter().filter(|state| filter.states.contains(state));
    let (stretches, parameter): (Vec<String>, Option<&dyn ToSql>) = match (&filter.run, &filter.workflow) {
        (Some(run), _) => (vec!["run = ?3".into()], Some(run)),
        (None, Some(workflow)) if filter.states == [TaskState::Dead] => {
            (vec!["workflow = ?3 AND state = 'dead'".into()], Some(workflow))
        }
        // The index of states has all but the most frequent one, which is soon found without.
        _ if !filter.states.is_empty() && !filter.states.contains(&TaskState::Completed) => {
            let indexed = |state: &TaskState| format!("{} AND state <> 'completed'", equals_state(state.name()));
            (every().map(indexed).collect(), None)
        }
        _ => (vec!["true".into()], None),
    };
    Source { table: "tasks", stretches, parameter }
}

pub fn task(connection: &Connection, id: TaskId) -> rusqlite::Result<Option<Task>> {
    let sql = format!(
        "SELECT {TASK_COLUMNS} FROM tasks LEFT JOIN task_states ON task_states.task = tasks.id WHERE tasks.id = ?1"
    );
    connection.prepare_cached(&sql)?.query_row([id], rows::task).optional()
}

pub fn messages(
    connection: &Connection,
    filter: &MessageFilter,
    request: &PageRequest<MessageId>,
) -> Result<Page<Message, MessageId>> {
    let search = Search::new(filter.text.as_deref())?;
    let range = Range::new(request.after.as_ref().map(MessageId::as_bytes), filter.since, filter.until);
    let sql = format!("SELECT {MESSAGE_COLUMNS} FROM messages WHERE id = ?1");
    let mut load = connection.prepare_cached(&sql)?;
    message_source(filter).walk(connection, &range, |ids| {
        page(request.limit, ids, |id| {
            let candidate = load.query_row([id], |row| {
                // What does not match is not copied.
                let matches = within(row.get("received_at")?, filter.since, filter.until)
                    && search.as_ref().map_or(Ok(true), |search| message_contains(row, search))?;
                if !matches {
                    return Ok(Candidate::Other);
                }
                let item = rows::message(row)?;
                let bytes = item.data.len() + item.body.as_ref().map_or(0, Vec::len);
                Ok(Candidate::Match { item, bytes })
            });
            Ok(candidate.optional()?.unwrap_or(Candidate::Other))
        })
    })
}

pub fn message_source(filter: &MessageFilter) -> Source<'_> {
    match &filter.topic {
        Some(topic) => Source { table: "messages", stretches: vec!["topic = ?3".into()], parameter: Some(topic) },
        None => Source { table: "messages", stretches: vec!["true".into()], parameter: None },
    }
}

fn message_contains(row: &Row<'_>, search: &Search) -> rusqlite::Result<bool> {
    Ok(search.finds(row.get_ref("data")?.as_str()?)
        || row.get_ref("dedupe_key")?.as_str_or_null()?.is_some_and(|key| search.finds(key))
        || search.finds(&row.get::<_, MessageId>("id")?.to_string()))
}

pub fn message(connection: &Connection, id: MessageId) -> rusqlite::Result<Option<Message>> {
    let sql = format!("SELECT {MESSAGE_COLUMNS} FROM messages WHERE id = ?1");
    connection.prepare_cached(&sql)?.query_row([id], rows::message).optional()
}

pub fn topics(connection: &Connection) -> rusqlite::Result<Vec<TopicSummary>> {
    let mut topics = connection.prepare_cached("SELECT topic, messages, last_received FROM topics ORDER BY topic")?;
    let read = |row: &Row<'_>| {
        let messages = row.get::<_, i64>(1)?.max(0) as u64;
        Ok(TopicSummary { topic: row.get(0)?, messages, last_received: row.get(2)? })
    };
    topics.query_map([], read)?.collect()
}

pub fn attempt(connection: &Connection, id: AttemptId) -> rusqlite::Result<Option<Attempt>> {
    let sql = format!("SELECT {ATTEMPT_COLUMNS} FROM attempts WHERE id = ?1");
    connection.prepare_cached(&sql)?.query_row([id], rows::attempt).optional()
}

pub fn output(connection: &Connection, attempt: AttemptId) -> rusqlite::Result<Option<String>> {
    let mut output = connection
        .prepare_cached("SELECT output FROM outputs WHERE attempt = (SELECT seq FROM attempts WHERE id = ?1)")?;
    output.query_row([attempt], |row| row.get(0)).optional()
}

pub fn log(connection: &Connection, attempt: AttemptId) -> rusqlite::Result<Option<String>> {
    let mut log =
        connection.prepare_cached("SELECT log FROM logs WHERE attempt = (SELECT seq FROM attempts WHERE id = ?1)")?;
    log.query_row([attempt], |row| row.get(0)).optional()
}

/// What was written last has the largest id or key, and a late time.
pub fn latest(connection: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let mut latest = connection.prepare_cached(
        "SELECT max(time) FROM (
           SELECT received_at AS time FROM messages WHERE id = (SELECT max(id) FROM messages)
           UNION ALL SELECT created_at FROM runs WHERE id = (SELECT max(id) FROM runs)
           UNION ALL SELECT finished_at FROM attempts WHERE id = (SELECT max(id) FROM attempts)
           UNION ALL SELECT finished_at FROM attempts WHERE seq = (SELECT max(seq) FROM attempts)
           UNION ALL SELECT max(last_received) FROM topics
           UNION ALL SELECT max(scheduled_at) FROM ticks
           UNION ALL SELECT max(published_at) FROM workflows)",
    )?;
    latest.query_row([], |row| row.get(0))
}
