//! Conditions: JavaScript expressions that are evaluated where no run has begun yet, as while a message waits to be
//! kept and it is to be known which triggers it is for.
//!
//! A run has an isolate of its own; that would be far too dear here. All conditions share one isolate on one thread,
//! made when the first is asked for, and each evaluation gets a fresh context in it ([`evaluator`](super::evaluator)).
//! An evaluation that hits a limit costs that isolate, and the next one finds another.
//!
//! Nothing queues here but the callers themselves, in the order in which they came: how many wait is up to whoever
//! lets them in.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use super::custody::Custody;
use super::evaluator::{Evaluator, OUT_OF_MEMORY, OUT_OF_TIME};
use super::limits::Tripwire;
use crate::compile;

/// Stack of the isolate's thread: V8 takes 1 MB for JavaScript and some for itself.
const STACK_SIZE: usize = 4 << 20;

/// How often a caller looks whether its isolate is lost. An answer is noticed at once.
const LOOK: Duration = Duration::from_millis(50);

/// How long a caller waits for an answer. Reading large arguments takes its time, and some of V8's built-ins do not
/// look whether they are to stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a condition gives no answer, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// It is no expression, it throws, or it gives a promise: the same would give none the next time either.
    #[error("{0}")]
    Faulty(String),
    /// It hit a limit, or there was nothing to evaluate it with. That says nothing of what it is true of.
    #[error("{0}")]
    CutShort(String),
}

/// See the module. Dropped, it ends its thread.
#[derive(Default)]
pub struct Conditions {
    worker: Mutex<Option<Worker>>,
}

impl Conditions {
    /// Whether `expression` is true, in JavaScript's sense, of the arguments: names, and values as JSON text. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn holds(&self, expression: &str, arguments: &[(&str, &str)]) -> Result<bool, NoAnswer> {
        let mut place = self.worker.lock().await;
        // Taken out of its place, the worker goes with a caller who goes away in the middle.
        let worker = match place.take() {
            Some(worker) => worker,
            None => Worker::start()?,
        };
        let answer = worker.ask(Question::new(expression, arguments)).await;
        if !worker.is_spent() {
            *place = Some(worker);
        }
        answer
    }

    /// Checks the syntax of an expression.
    ///
    /// # Errors
    /// The first thing that is wrong, with line and column.
    pub fn check(expression: &str) -> Result<(), String> {
        compile::check_expression("condition", expression).map_err(|error| {
            let problem = error.diagnostics.first();
            problem.map_or_else(String::new, |it| format!("{}:{}: {}", it.line, it.column, it.message))
        })
    }
}

/// An expression, and what it is asked of.
pub(super) struct Question {
    pub expression: String,
    /// Names, and values as JSON text.
    pub arguments: Vec<(String, String)>,
}

impl Question {
    fn new(expression: &str, arguments: &[(&str, &str)]) -> Self {
        let arguments = arguments.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self { expression: expression.to_owned(), arguments: arguments.collect() }
    }
}

pub(super) type Answer = Result<bool, NoAnswer>;

/// A thread with an isolate, from outside.
struct Worker {
    questions: mpsc::Sender<(Question, oneshot::Sender<Answer>)>,
    tripwire: Arc<Tripwire>,
}

impl Worker {
    fn start() -> Result<Self, NoAnswer> {
        let tripwire = Arc::<Tripwire>::default();
        let (questions, asked) = mpsc::channel(1);
        let failed = |error| NoAnswer::CutShort(format!("cannot start a thread for conditions: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let work = {
            let tripwire = tripwire.clone();
            move || runtime.block_on(work(asked, tripwire))
        };
        thread::Builder::new().name("conditions".into()).stack_size(STACK_SIZE).spawn(work).map_err(failed)?;
        Ok(Self { questions, tripwire })
    }

    async fn ask(&self, question: Question) -> Answer {
        let since = Instant::now();
        let (reply, mut answer) = oneshot::channel();
        // If the thread is gone, so is the other end of `answer`.
        let _ = self.questions.send((question, reply)).await;
        let reason = loop {
            match timeout(LOOK, &mut answer).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(_)) => break "the conditions' thread panicked: this is a bug in fnhost",
                Err(_) if self.tripwire.is_lost() => break OUT_OF_MEMORY,
                Err(_) if since.elapsed() > PATIENCE => {
                    self.tripwire.cancel();
                    break OUT_OF_TIME;
                }
                Err(_) => {}
            }
        };
        Err(NoAnswer::CutShort(reason.into()))
    }

    /// Whether its isolate is not to be used again.
    fn is_spent(&self) -> bool {
        self.tripwire.tripped().is_some() || self.tripwire.is_lost()
    }
}

impl Drop for Worker {
    /// What it is still evaluating, nobody waits for.
    fn drop(&mut self) {
        self.tripwire.cancel();
    }
}

/// Answers questions until there are no more, or a limit is hit.
async fn work(mut questions: mpsc::Receiver<(Question, oneshot::Sender<Answer>)>, tripwire: Arc<Tripwire>) {
    let _custody = Custody::take(tripwire.clone());
    let mut evaluator = Evaluator::new(tripwire.clone());
    while tripwire.tripped().is_none()
        && let Some((question, reply)) = questions.recv().await
    {
        let _ = reply.send(evaluator.evaluate(&question));
        evaluator.tidy().await;
    }
}
