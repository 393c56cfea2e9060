//! What every store must do, whichever database is below: each function is one behaviour, given an empty store.
//! [`every_behaviour`] makes a test of each.

mod queue;
mod records;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::model::{AttemptOutcome, Failure, Priority, Request, Severity, TaskInput, Usage};

pub use queue::*;
pub use records::*;

/// Makes a test of every behaviour; `$open` gives an empty store, and something that keeps it alive.
macro_rules! every_behaviour {
    ($open:path: $($name:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let (store, _home) = $open();
            $crate::store::suite::$name(store).await;
        }
    )*};
    ($open:path) => {
        $crate::store::suite::every_behaviour! { $open:
            what_was_admitted_is_claimed_once
            what_comes_with_a_lease_is_claimed_already
            what_follows_with_a_lease_is_claimed_already
            a_repeated_message_answers_with_the_first_ones_runs
            a_tick_happens_once_and_in_order
            a_lone_run_makes_ticks_overlap
            urgent_tasks_go_first_and_workflows_take_turns
            a_flood_of_one_workflow_does_not_hold_up_another
            an_allowance_is_kept
            a_claim_says_when_to_come_again
            a_claim_says_what_it_left
            a_run_goes_on_until_its_last_task_has_ended
            a_retry_waits_for_its_time
            a_dead_task_fails_its_run_until_it_is_sent_on_its_way_again
            a_failure_that_is_left_fails_the_run
            dead_tasks_are_redriven_by_condition
            only_the_holder_of_a_lease_can_settle
            a_lost_lease_is_taken_over
            a_released_task_counts_no_attempt
            cancelling_stops_what_waits_and_keeps_what_ran
            a_step_that_was_cancelled_cancels_its_run
            lists_are_read_page_by_page
            runs_are_found_by_what_is_known_of_them
            messages_are_found_by_what_is_known_of_them
            tasks_are_found_by_what_is_known_of_them
            old_things_are_forgotten
            what_is_needed_is_not_forgotten
            a_definition_keeps_its_version_until_it_changes
            a_cursor_is_what_the_last_success_left
            the_queue_is_counted_by_workflow
            the_latest_time_is_known
            credentials_are_kept_sealed
            a_revoked_token_is_no_token
            many_at_once_lose_and_repeat_nothing
        }
    };
}
pub(crate) use every_behaviour;

type Shared = Arc<dyn Store>;

/// A moment; others are seconds from it.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000 + seconds * 1_000_000)
}

fn message(topic: &str, data: &str) -> Message {
    Message {
        id: MessageId::new(),
        topic: topic.into(),
        data: data.into(),
        body: None,
        request: Request { method: "POST".into(), path: "/inbox".into(), ..Request::default() },
        received_at: at(0),
        deliver_at: None,
        dedupe_key: None,
    }
}

fn run(workflow: &str) -> Run {
    Run {
        id: RunId::new(),
        workflow: workflow.into(),
        version: 1,
        trigger: None,
        message: None,
        retry_of: None,
        state: RunState::Pending,
        priority: Priority::Normal,
        created_at: at(0),
        started_at: None,
        finished_at: None,
        failure: None,
        traceparent: None,
    }
}

fn task(run: &Run, step: &str) -> Task {
    Task {
        id: TaskId::new(),
        run: run.id,
        workflow: run.workflow.clone(),
        step: step.into(),
        state: TaskState::Queued,
        run_at: run.created_at,
        priority: run.priority,
        attempts: 0,
        input: TaskInput::State("{}".into()),
        created_at: run.created_at,
    }
}

fn start(run: Run) -> NewRun {
    let tasks = vec![task(&run, "a")];
    NewRun { run, tasks }
}

fn tick(seconds: i64, alone: bool) -> Intake {
    let tick = Tick { trigger: "nightly".into(), scheduled_at: at(seconds), alone };
    Intake { tick: Some(tick), runs: vec![start(run("w"))], ..Intake::default() }
}

async fn admit(store: &Shared, runs: Vec<NewRun>) {
    let admitted = store.admit(Intake { runs, ..Intake::default() }).await.unwrap();
    assert_eq!(admitted, Admitted::New);
}

/// Admits a run of one task, and gives its id.
async fn admit_one(store: &Shared, workflow: &str) -> RunId {
    let new = start(run(workflow));
    let id = new.run.id;
    admit(store, vec![new]).await;
    id
}

fn wish(now: Timestamp, limit: usize) -> Claim {
    Claim {
        owner: "me".into(),
        now,
        lease_until: now.saturating_add(Duration::from_secs(60)),
        limit,
        allowance: HashMap::new(),
        otherwise: usize::MAX,
        running: HashMap::new(),
    }
}

async fn claim(store: &Shared, now: Timestamp, limit: usize) -> Vec<ClaimedTask> {
    store.claim(wish(now, limit)).await.unwrap().tasks
}

async fn claim_one(store: &Shared, now: Timestamp) -> ClaimedTask {
    let mut tasks = claim(store, now, 1).await;
    tasks.pop().expect("a task that is due")
}

fn workflows(claimed: &[ClaimedTask]) -> Vec<&str> {
    claimed.iter().map(|claimed| claimed.task.workflow.as_str()).collect()
}

fn settlement(claimed: &ClaimedTask, then: Then) -> Settlement {
    let failed = matches!(then, Then::Retry { .. } | Then::Dead);
    let attempt = Attempt {
        id: AttemptId::new(),
        task: claimed.task.id,
        number: claimed.task.attempts,
        started_at: claimed.lease_started,
        finished_at: claimed.lease_started.saturating_add(Duration::from_secs(1)),
        outcome: if failed { AttemptOutcome::Failure } else { AttemptOutcome::Success },
        failure: failed.then(|| Failure::new("AdaptorError", Severity::Fail, "the server said no")),
        usage: Usage { cpu_us: 7, heap: 8, buffers: 9 },
    };
    let output = (!failed).then(|| r#"{"data":1}"#.into());
    let (owner, log) = ("me".into(), "{}\n".into());
    Settlement { owner, attempt, output, log, keep_cursor: false, then, lease: None }
}

fn done() -> Then {
    Then::Next { state: TaskState::Completed, tasks: vec![] }
}

async fn settle(store: &Shared, claimed: &ClaimedTask, then: Then) -> Settled {
    store.settle(settlement(claimed, then)).await.unwrap()
}

async fn detail(store: &Shared, run: RunId) -> RunDetail {
    store.run(run).await.unwrap().expect("the run")
}

fn first<Id>(limit: usize) -> PageRequest<Id> {
    PageRequest { after: None, limit }
}

async fn found_runs(store: &Shared, filter: RunFilter) -> Vec<RunId> {
    let page = store.runs(filter, first(100)).await.unwrap();
    assert!(page.next.is_none());
    page.items.into_iter().map(|run| run.id).collect()
}
