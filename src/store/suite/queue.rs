//! Messages, runs and tasks on their way: claims, leases, settlements, ticks, retries.

use super::*;

pub async fn what_was_admitted_is_claimed_once(store: Shared) {
    let message = Message { body: Some(vec![0, 255]), dedupe_key: Some("k".into()), ..message("inbox", r#"{"a":1}"#) };
    let run = Run { message: Some(message.id), trigger: Some("t".into()), traceparent: Some("00".into()), ..run("w") };
    let task = Task { input: TaskInput::Message, ..task(&run, "a") };
    let new = NewRun { run: run.clone(), tasks: vec![task.clone()] };
    let intake = Intake { message: Some(message.clone()), runs: vec![new], ..Intake::default() };
    assert_eq!(store.admit(intake).await.unwrap(), Admitted::New);

    let kept = store.message(message.id).await.unwrap().unwrap();
    assert_eq!((kept.data, kept.body, kept.request), (message.data, message.body, message.request));
    assert_eq!((kept.topic, kept.received_at, kept.dedupe_key), ("inbox".into(), at(0), Some("k".into())));

    let claimed = claim_one(&store, at(1)).await;
    assert_eq!((claimed.task.id, claimed.task.state, claimed.task.attempts), (task.id, TaskState::Running, 1));
    assert_eq!((claimed.task.input, claimed.forgiven, claimed.lease_started), (TaskInput::Message, 0, at(1)));
    assert_eq!((claimed.run.id, claimed.run.state, claimed.run.started_at), (run.id, RunState::Running, Some(at(1))));
    assert_eq!((claimed.run.trigger, claimed.run.traceparent), (run.trigger, run.traceparent));
    assert!(claim(&store, at(2), 10).await.is_empty());
}

fn lease(seconds: i64) -> Lease {
    Lease { owner: "me".into(), started: at(0), until: at(seconds) }
}

/// A run that begins in the transaction that keeps it.
fn started(run: Run) -> NewRun {
    let run = Run { state: RunState::Running, started_at: Some(at(0)), ..run };
    let tasks = vec![Task { state: TaskState::Running, attempts: 1, ..task(&run, "a") }];
    NewRun { run, tasks }
}

pub async fn what_comes_with_a_lease_is_claimed_already(store: Shared) {
    let (ours, waiting) = (started(run("w")), start(run("w")));
    let (first, second) = (ours.clone(), waiting.tasks[0].id);
    admit(&store, vec![start(run("v"))]).await;
    let intake = Intake { runs: vec![ours, waiting], lease: Some(lease(60)), ..Intake::default() };
    assert_eq!(store.admit(intake).await.unwrap(), Admitted::New);
    let claimed = store.claim(wish(at(0), 9)).await.unwrap().tasks;
    let claimed: Vec<TaskId> = claimed.iter().map(|claimed| claimed.task.id).collect();
    assert!(claimed.len() == 2 && claimed.contains(&second), "{claimed:?}");
    let NewRun { run, tasks } = first;
    let task = ClaimedTask { task: tasks[0].clone(), run, forgiven: 0, lease_started: at(0) };
    assert_eq!(store.settle(settlement(&task, done())).await.unwrap(), Settled::Finished(RunState::Completed));
    let detail = store.run(task.run.id).await.unwrap().unwrap();
    assert_eq!((detail.run.started_at, detail.tasks[0].1.len()), (Some(at(0)), 1));
    assert!(store.claim_lost("you", at(61), at(90), 9).await.unwrap().iter().all(|lost| lost.task.id != task.task.id));
}

pub async fn what_follows_with_a_lease_is_claimed_already(store: Shared) {
    admit_one(&store, "w").await;
    let first = store.claim(wish(at(0), 1)).await.unwrap().tasks.remove(0);
    let next = Task { state: TaskState::Running, attempts: 1, ..task(&first.run, "b") };
    let then = Then::Next { state: TaskState::Completed, tasks: vec![next.clone()] };
    let wanted = Settlement { lease: Some(lease(60)), ..settlement(&first, then) };
    assert_eq!(store.settle(wanted).await.unwrap(), Settled::Open);
    assert!(store.claim(wish(at(1), 9)).await.unwrap().tasks.is_empty());
    let lost = store.claim_lost("you", at(61), at(90), 9).await.unwrap();
    assert_eq!(lost.iter().map(|lost| lost.task.id).collect::<Vec<_>>(), [next.id]);
}

pub async fn a_claim_says_what_it_left(store: Shared) {
    admit(&store, vec![start(run("w")), start(run("w")), start(run("v"))]).await;
    assert_eq!(store.claim(wish(at(0), 1)).await.unwrap().left, Left::Any);
    let full = Claim { allowance: HashMap::from([("w".into(), 0), ("v".into(), 0)]), ..wish(at(0), 9) };
    let both = HashSet::from(["w".to_owned(), "v".to_owned()]);
    assert!(
        matches!(store.claim(full).await.unwrap().left, Left::Only(left) if left.is_subset(&both) && !left.is_empty())
    );
    let unlisted = Claim { otherwise: 0, ..wish(at(0), 9) };
    assert!(store.claim(unlisted).await.unwrap().tasks.is_empty());
    assert_eq!(store.claim(wish(at(0), 9)).await.unwrap().left, Left::default());
}

pub async fn a_repeated_message_answers_with_the_first_ones_runs(store: Shared) {
    let keyed = |topic: &str, key: &str| Message { dedupe_key: Some(key.into()), ..message(topic, "{}") };
    let intake = |message: Message| {
        let run = Run { message: Some(message.id), ..run("w") };
        Intake { message: Some(message), runs: vec![start(run)], ..Intake::default() }
    };
    let one = intake(keyed("inbox", "1"));
    let id = one.message.as_ref().unwrap().id;
    let runs = vec![(one.runs[0].run.id, "w".to_owned())];
    assert_eq!(store.admit(one.clone()).await.unwrap(), Admitted::New);
    let duplicate = Admitted::Duplicate { message: id, runs };
    assert_eq!(store.admit(intake(keyed("inbox", "1"))).await.unwrap(), duplicate);
    // Sent again by a caller that did not get the answer.
    assert_eq!(store.admit(one).await.unwrap(), duplicate);
    assert_eq!(store.admit(intake(keyed("inbox", "2"))).await.unwrap(), Admitted::New);
    assert_eq!(store.admit(intake(keyed("other", "1"))).await.unwrap(), Admitted::New);
    assert_eq!(store.admit(intake(message("inbox", "{}"))).await.unwrap(), Admitted::New);
    assert_eq!(store.admit(intake(message("inbox", "{}"))).await.unwrap(), Admitted::New);
    assert_eq!(claim(&store, at(1), 100).await.len(), 5);
    let topics = store.topics().await.unwrap();
    let counts: Vec<_> = topics.iter().map(|topic| (topic.topic.as_str(), topic.messages)).collect();
    assert_eq!(counts, [("inbox", 4), ("other", 1)]);
}

pub async fn a_tick_happens_once_and_in_order(store: Shared) {
    assert_eq!(store.last_tick("nightly").await.unwrap(), None);
    for (seconds, admitted) in
        [(10, Admitted::New), (10, Admitted::Stale), (5, Admitted::Stale), (11, Admitted::New), (11, Admitted::Stale)]
    {
        assert_eq!(store.admit(tick(seconds, false)).await.unwrap(), admitted, "{seconds}");
    }
    assert_eq!(store.last_tick("nightly").await.unwrap(), Some(at(11)));
    assert_eq!(claim(&store, at(20), 10).await.len(), 2);

    store.set_last_tick("nightly", at(7)).await.unwrap();
    for (seconds, admitted) in [(7, Admitted::Stale), (8, Admitted::New), (8, Admitted::Stale)] {
        assert_eq!(store.admit(tick(seconds, false)).await.unwrap(), admitted, "{seconds}");
    }
    store.set_last_tick("never fired", at(3)).await.unwrap();
    assert_eq!(store.last_tick("never fired").await.unwrap(), Some(at(3)));
}

pub async fn a_lone_run_makes_ticks_overlap(store: Shared) {
    admit_one(&store, "other").await;
    assert_eq!(store.admit(tick(10, true)).await.unwrap(), Admitted::New);
    assert_eq!(store.admit(tick(11, true)).await.unwrap(), Admitted::Overlap);
    assert_eq!(store.admit(tick(11, true)).await.unwrap(), Admitted::Stale);
    for claimed in claim(&store, at(20), 10).await {
        settle(&store, &claimed, done()).await;
    }
    assert_eq!(store.admit(tick(12, true)).await.unwrap(), Admitted::New);
}

pub async fn urgent_tasks_go_first_and_workflows_take_turns(store: Shared) {
    for workflow in ["a", "a", "a", "b", "c"] {
        admit_one(&store, workflow).await;
    }
    admit(&store, vec![start(Run { priority: Priority::Immediate, created_at: at(1), ..run("c") })]).await;
    let claimed = claim(&store, at(5), 10).await;
    assert_eq!(claimed[0].task.priority, Priority::Immediate);
    assert_eq!(workflows(&claimed), ["c", "a", "b", "c", "a", "a"]);
}

pub async fn a_flood_of_one_workflow_does_not_hold_up_another(store: Shared) {
    for _ in 0..20 {
        admit_one(&store, "flood").await;
    }
    admit(
        &store,
        vec![start(Run { created_at: at(1), ..run("late") }), start(Run { created_at: at(1), ..run("late") })],
    )
    .await;
    // One place, taken again and again.
    let mut order = Vec::new();
    for _ in 0..4 {
        let claimed = claim_one(&store, at(5)).await;
        settle(&store, &claimed, done()).await;
        order.push(claimed.task.workflow);
    }
    assert_eq!(order, ["flood", "late", "flood", "late"]);
    // Two of the flood are under way for a long time: others first.
    admit_one(&store, "late").await;
    admit_one(&store, "late").await;
    let running = HashMap::from([("flood".to_owned(), 2)]);
    let claimed = store.claim(Claim { running, ..wish(at(5), 3) }).await.unwrap().tasks;
    assert_eq!(workflows(&claimed), ["late", "late", "flood"]);
}

pub async fn an_allowance_is_kept(store: Shared) {
    for workflow in ["a", "a", "a", "b", "b", "none"] {
        admit_one(&store, workflow).await;
    }
    let allowance = HashMap::from([("a".to_owned(), 2), ("none".to_owned(), 0)]);
    let claimed = store.claim(Claim { allowance, ..wish(at(5), 10) }).await.unwrap().tasks;
    assert_eq!(workflows(&claimed), ["a", "b", "a", "b"]);
}

pub async fn a_claim_says_when_to_come_again(store: Shared) {
    assert_eq!(store.claim(wish(at(0), 1)).await.unwrap().next_due, None);
    let later = |seconds, priority| {
        let run = Run { priority, ..run("w") };
        let task = Task { state: TaskState::Scheduled, run_at: at(seconds), ..task(&run, "a") };
        NewRun { run, tasks: vec![task] }
    };
    admit(&store, vec![later(30, Priority::Normal), later(20, Priority::Immediate), later(10, Priority::Normal)]).await;
    let claimed = store.claim(wish(at(9), 5)).await.unwrap();
    assert_eq!((claimed.tasks.len(), claimed.next_due), (0, Some(at(10))));
    let claimed = store.claim(wish(at(10), 5)).await.unwrap();
    assert_eq!((claimed.tasks.len(), claimed.next_due), (1, Some(at(20))));
    let claimed = store.claim(wish(at(30), 1)).await.unwrap();
    assert_eq!((claimed.tasks.len(), claimed.next_due), (1, None));
}

pub async fn a_run_goes_on_until_its_last_task_has_ended(store: Shared) {
    let id = admit_one(&store, "w").await;
    let first = claim_one(&store, at(1)).await;
    let next = vec![task(&first.run, "b"), task(&first.run, "c")];
    let wanted = settlement(&first, Then::Next { state: TaskState::Completed, tasks: next });
    let attempt = wanted.attempt.clone();
    assert_eq!(store.settle(wanted).await.unwrap(), Settled::Open);
    let claimed = claim(&store, at(2), 10).await;
    assert_eq!(claimed.len(), 2);
    assert_eq!(settle(&store, &claimed[0], done()).await, Settled::Open);
    let handled = Then::Next { state: TaskState::Failed, tasks: vec![] };
    assert_eq!(settle(&store, &claimed[1], handled).await, Settled::Finished(RunState::Completed));

    let RunDetail { run, tasks } = detail(&store, id).await;
    assert_eq!((run.state, run.started_at, run.finished_at), (RunState::Completed, Some(at(1)), Some(at(3))));
    let ends: Vec<_> = tasks.iter().map(|(task, attempts)| (task.step.as_str(), task.state, attempts.len())).collect();
    assert_eq!(ends, [("a", TaskState::Completed, 1), ("b", TaskState::Completed, 1), ("c", TaskState::Failed, 1)]);
    assert_eq!((tasks[0].1[0].id, tasks[0].1[0].usage), (attempt.id, attempt.usage));
    assert_eq!(store.attempt(attempt.id).await.unwrap().unwrap().finished_at, at(2));
    assert_eq!(store.output(attempt.id).await.unwrap().unwrap(), r#"{"data":1}"#);
    assert_eq!(store.log(attempt.id).await.unwrap().unwrap(), "{}\n");
    assert!(store.output(AttemptId::new()).await.unwrap().is_none());
}

pub async fn a_retry_waits_for_its_time(store: Shared) {
    admit_one(&store, "w").await;
    let claimed = claim_one(&store, at(1)).await;
    assert_eq!(settle(&store, &claimed, Then::Retry { run_at: at(50) }).await, Settled::Open);
    let early = store.claim(wish(at(49), 1)).await.unwrap();
    assert_eq!((early.tasks.len(), early.next_due), (0, Some(at(50))));
    let again = claim_one(&store, at(50)).await;
    assert_eq!((again.task.id, again.task.attempts, again.run.state), (claimed.task.id, 2, RunState::Running));
    assert_eq!(settle(&store, &again, done()).await, Settled::Finished(RunState::Completed));
    let detail = detail(&store, claimed.run.id).await;
    let outcomes: Vec<_> = detail.tasks[0].1.iter().map(|attempt| (attempt.number, attempt.outcome)).collect();
    assert_eq!(outcomes, [(1, AttemptOutcome::Failure), (2, AttemptOutcome::Success)]);
    assert!(detail.run.failure.is_none());
}

pub async fn a_dead_task_fails_its_run_until_it_is_sent_on_its_way_again(store: Shared) {
    let id = admit_one(&store, "w").await;
    let claimed = claim_one(&store, at(1)).await;
    assert_eq!(settle(&store, &claimed, Then::Dead).await, Settled::Finished(RunState::Failed));
    let failed = detail(&store, id).await.run;
    assert_eq!(failed.failure.unwrap().class, "AdaptorError");
    assert_eq!(failed.finished_at, Some(at(2)));
    assert!(claim(&store, at(9), 1).await.is_empty());

    let redrive = Redrive { task: Some(claimed.task.id), limit: 10, ..Redrive::default() };
    assert_eq!(store.redrive(redrive.clone(), at(10)).await.unwrap(), 1);
    assert_eq!(store.redrive(redrive, at(10)).await.unwrap(), 0);
    let open = detail(&store, id).await.run;
    assert_eq!((open.state, open.failure, open.finished_at), (RunState::Running, None, None));
    let again = claim_one(&store, at(10)).await;
    assert_eq!((again.task.attempts, again.forgiven, again.run.started_at), (2, 1, Some(at(1))));
    assert_eq!(settle(&store, &again, done()).await, Settled::Finished(RunState::Completed));
}

pub async fn a_failure_that_is_left_fails_the_run(store: Shared) {
    let run = run("w");
    let tasks = vec![task(&run, "a"), task(&run, "b")];
    let id = run.id;
    admit(&store, vec![NewRun { run, tasks }]).await;
    let claimed = claim(&store, at(1), 2).await;
    let mut other = settlement(&claimed[0], Then::Dead);
    other.attempt.failure = Some(Failure::new("TimeoutError", Severity::Kill, "too slow"));
    assert_eq!(store.settle(other).await.unwrap(), Settled::Open);
    assert_eq!(settle(&store, &claimed[1], Then::Dead).await, Settled::Finished(RunState::Failed));
    assert_eq!(detail(&store, id).await.run.failure.unwrap().class, "TimeoutError");

    let redrive = Redrive { task: Some(claimed[0].task.id), limit: 1, ..Redrive::default() };
    assert_eq!(store.redrive(redrive, at(10)).await.unwrap(), 1);
    let again = claim_one(&store, at(10)).await;
    assert_eq!(settle(&store, &again, done()).await, Settled::Finished(RunState::Failed));
    assert_eq!(detail(&store, id).await.run.failure.unwrap().class, "AdaptorError");
}

pub async fn dead_tasks_are_redriven_by_condition(store: Shared) {
    for workflow in ["a", "a", "a", "b"] {
        admit_one(&store, workflow).await;
    }
    let claimed = claim(&store, at(1), 10).await;
    for claimed in &claimed {
        settle(&store, claimed, Then::Dead).await;
    }
    let of_a = claimed.iter().find(|claimed| claimed.task.workflow == "a").unwrap();
    let redrive = |redrive: Redrive| store.redrive(redrive, at(5));
    let run = Redrive { run: Some(of_a.run.id), limit: 10, ..Redrive::default() };
    assert_eq!(redrive(Redrive { workflow: Some("b".into()), ..run.clone() }).await.unwrap(), 0);
    assert_eq!(redrive(run).await.unwrap(), 1);
    let workflow = Redrive { workflow: Some("a".into()), limit: 1, ..Redrive::default() };
    assert_eq!(redrive(workflow.clone()).await.unwrap(), 1);
    assert_eq!(redrive(workflow.clone()).await.unwrap(), 1);
    assert_eq!(redrive(workflow).await.unwrap(), 0);
    assert_eq!(redrive(Redrive { limit: 10, ..Redrive::default() }).await.unwrap(), 1);
    assert_eq!(claim(&store, at(5), 10).await.len(), 4);
}

pub async fn only_the_holder_of_a_lease_can_settle(store: Shared) {
    admit_one(&store, "w").await;
    let claimed = claim_one(&store, at(1)).await;
    let good = settlement(&claimed, done());
    let other_owner = Settlement { owner: "you".into(), ..settlement(&claimed, Then::Dead) };
    let mut other_attempt = settlement(&claimed, Then::Dead);
    other_attempt.attempt.number += 1;
    for lost in [other_owner, other_attempt] {
        let id = lost.attempt.id;
        assert_eq!(store.settle(lost).await.unwrap(), Settled::LeaseLost);
        assert!(store.attempt(id).await.unwrap().is_none());
    }
    assert_eq!(store.settle(good.clone()).await.unwrap(), Settled::Finished(RunState::Completed));
    assert_eq!(store.settle(good).await.unwrap(), Settled::LeaseLost);
    let tasks = detail(&store, claimed.run.id).await.tasks;
    assert_eq!((tasks[0].0.state, tasks[0].1.len()), (TaskState::Completed, 1));
}

pub async fn a_lost_lease_is_taken_over(store: Shared) {
    admit_one(&store, "w").await;
    let claimed = claim_one(&store, at(0)).await;
    let id = claimed.task.id;
    assert!(store.claim_lost("you", at(59), at(200), 10).await.unwrap().is_empty());
    assert_eq!(store.renew("me", &[id, TaskId::new()], at(100)).await.unwrap(), [id]);
    assert!(store.claim_lost("you", at(99), at(200), 10).await.unwrap().is_empty());

    let lost = store.claim_lost("you", at(100), at(200), 10).await.unwrap();
    assert_eq!((lost[0].task.id, lost[0].task.attempts, lost[0].lease_started), (id, 1, at(0)));
    assert!(store.claim_lost("they", at(150), at(300), 10).await.unwrap().is_empty());
    assert!(store.renew("me", &[id], at(300)).await.unwrap().is_empty());
    assert_eq!(settle(&store, &claimed, done()).await, Settled::LeaseLost);
    let retry = Settlement { owner: "you".into(), ..settlement(&lost[0], Then::Retry { run_at: at(150) }) };
    assert_eq!(store.settle(retry).await.unwrap(), Settled::Open);
    assert_eq!(claim_one(&store, at(150)).await.task.attempts, 2);
}

pub async fn a_released_task_counts_no_attempt(store: Shared) {
    admit_one(&store, "w").await;
    let claimed = claim_one(&store, at(1)).await;
    store.release("you", &[claimed.task.id]).await.unwrap();
    assert!(claim(&store, at(1), 1).await.is_empty());
    store.release("me", &[claimed.task.id]).await.unwrap();
    let again = claim_one(&store, at(1)).await;
    assert_eq!((again.task.id, again.task.attempts), (claimed.task.id, 1));
    settle(&store, &again, Then::Retry { run_at: at(2) }).await;
    let third = claim_one(&store, at(2)).await;
    store.release("me", &[third.task.id]).await.unwrap();
    assert_eq!(detail(&store, claimed.run.id).await.tasks[0].0.state, TaskState::Retrying);
    assert_eq!(claim_one(&store, at(2)).await.task.attempts, 2);
}

pub async fn cancelling_stops_what_waits_and_keeps_what_ran(store: Shared) {
    let run = run("w");
    let tasks = vec![task(&run, "a"), task(&run, "b"), task(&run, "c")];
    let id = run.id;
    admit(&store, vec![NewRun { run, tasks }]).await;
    let claimed = claim(&store, at(1), 2).await;
    settle(&store, &claimed[1], Then::Dead).await;
    let running = vec![claimed[0].task.id];
    assert_eq!(store.cancel(id, at(2)).await.unwrap(), Cancellation::Cancelled { running });
    assert!(claim(&store, at(3), 10).await.is_empty());
    assert!(store.renew("me", &[claimed[0].task.id], at(100)).await.unwrap().is_empty());
    assert!(store.claim_lost("me", at(1000), at(2000), 10).await.unwrap().is_empty());

    let late = Settlement { then: Then::Cancelled, ..settlement(&claimed[0], done()) };
    assert_eq!(store.settle(late.clone()).await.unwrap(), Settled::LeaseLost);
    assert_eq!(store.log(late.attempt.id).await.unwrap().unwrap(), "{}\n");
    let mut repeated = late;
    repeated.attempt.id = AttemptId::new();
    assert_eq!(store.settle(repeated).await.unwrap(), Settled::LeaseLost);

    let RunDetail { run, tasks } = detail(&store, id).await;
    assert_eq!((run.state, run.finished_at), (RunState::Cancelled, Some(at(2))));
    assert!(tasks.iter().all(|(task, _)| task.state == TaskState::Cancelled));
    assert_eq!(tasks.iter().map(|(_, attempts)| attempts.len()).collect::<Vec<_>>(), [1, 1, 0]);
    assert_eq!(store.redrive(Redrive { limit: 9, ..Redrive::default() }, at(5)).await.unwrap(), 0);
    assert_eq!(store.cancel(id, at(9)).await.unwrap(), Cancellation::AlreadyEnded(RunState::Cancelled));
    assert_eq!(store.cancel(RunId::new(), at(9)).await.unwrap(), Cancellation::NotFound);
}

pub async fn a_step_that_was_cancelled_cancels_its_run(store: Shared) {
    admit_one(&store, "w").await;
    let claimed = claim_one(&store, at(1)).await;
    assert_eq!(settle(&store, &claimed, Then::Cancelled).await, Settled::Finished(RunState::Cancelled));
}

/// Eight senders and eight workers at once. Each run has two steps; every third task is retried once, some die.
pub async fn many_at_once_lose_and_repeat_nothing(store: Shared) {
    const EACH: usize = 40;
    let senders: Vec<_> = (0..8).map(|sender| tokio::spawn(send(store.clone(), sender, EACH))).collect();
    let workers: Vec<_> = (0..8).map(|worker| tokio::spawn(work(store.clone(), worker, 8 * EACH))).collect();
    let mut admitted = HashSet::new();
    for sender in senders {
        admitted.extend(sender.await.unwrap());
    }
    assert_eq!(admitted.len(), 8 * EACH);
    let mut settled = HashSet::new();
    for worker in workers {
        for attempt in worker.await.unwrap() {
            assert!(settled.insert(attempt), "{attempt:?} was settled twice");
        }
    }
    for id in admitted {
        let RunDetail { run, tasks } = detail(&store, id).await;
        let dead = tasks.iter().any(|(task, _)| task.state == TaskState::Dead);
        assert_eq!(run.state, if dead { RunState::Failed } else { RunState::Completed });
        assert_eq!(run.failure.is_some(), dead);
        assert!(run.finished_at.is_some());
        assert_eq!(tasks.len(), 2);
        for (task, attempts) in tasks {
            assert!(task.state.is_final());
            let numbers: Vec<u32> = attempts.iter().map(|attempt| attempt.number).collect();
            assert_eq!(numbers, (1..=task.attempts).collect::<Vec<_>>());
            assert!(numbers.iter().all(|number| settled.remove(&(task.id, *number))));
        }
    }
    assert!(settled.is_empty(), "attempts that no task knows of");
    let open: u64 =
        store.queue(at(10_000)).await.unwrap().iter().map(|queue| queue.due + queue.later + queue.running).sum();
    assert_eq!(open, 0);
}

async fn send(store: Shared, sender: usize, count: usize) -> Vec<RunId> {
    let mut runs = Vec::new();
    for index in 0..count {
        let message = Message { dedupe_key: Some(format!("{sender}-{index}")), ..message("inbox", "{}") };
        let run = Run { message: Some(message.id), ..run(["a", "b", "c"][index % 3]) };
        runs.push(run.id);
        let intake = Intake { message: Some(message), runs: vec![start(run)], ..Intake::default() };
        assert_eq!(store.admit(intake.clone()).await.unwrap(), Admitted::New);
        assert!(matches!(store.admit(intake).await.unwrap(), Admitted::Duplicate { .. }));
    }
    runs
}

/// Works until all runs have ended: the attempts it settled.
async fn work(store: Shared, worker: usize, runs: usize) -> Vec<(TaskId, u32)> {
    let mut settled = Vec::new();
    let owner = format!("worker {worker}");
    let ended = RunFilter { states: vec![RunState::Completed, RunState::Failed], ..RunFilter::default() };
    loop {
        let claimed = store.claim(Claim { owner: owner.clone(), ..wish(at(10), 3) }).await.unwrap().tasks;
        if claimed.is_empty() && store.runs(ended.clone(), first(runs)).await.unwrap().items.len() == runs {
            return settled;
        }
        for claimed in claimed {
            let then = match (claimed.task.id.as_bytes()[15] % 6, claimed.task.step.as_str()) {
                (0 | 1, _) if claimed.task.attempts == 1 => Then::Retry { run_at: at(5) },
                (_, "a") => Then::Next { state: TaskState::Completed, tasks: vec![task(&claimed.run, "b")] },
                (2, _) => Then::Dead,
                _ => done(),
            };
            let wanted = Settlement { owner: owner.clone(), ..settlement(&claimed, then) };
            assert_ne!(store.settle(wanted).await.unwrap(), Settled::LeaseLost);
            settled.push((claimed.task.id, claimed.task.attempts));
        }
    }
}
