//! From jobs and triggers to workflows: each job that something starts is the first step of one, and the jobs that flow
//! from it are the others.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use super::jobs::Job;
use super::problem::quoted;
use super::reader::Reader;
use super::triggers::{Starts, Trigger};
use crate::model::{self, Condition, Edge, Isolation, Step, StepKind, TriggerKind, Workflow};

/// Steps of one workflow at most.
const MOST_STEPS: usize = 1000;
/// Bytes of all workflows together: a job that many workflows share is in each of them.
const MOST_BYTES: usize = 256 << 20;
/// What a step takes besides its expression.
const STEP_BYTES: usize = 1 << 10;

/// `isolation` holds for workflows that say nothing of it.
pub(super) fn assemble(jobs: &[Job], triggers: &[Trigger], isolation: Isolation, reader: &mut Reader) -> Vec<Workflow> {
    let mut graph = Graph::new(jobs);
    graph.connect(triggers, reader);
    graph.refuse_circles(reader);
    graph.check_first_jobs(reader);
    graph.workflows(isolation, reader)
}

/// Which job follows which.
struct Graph<'a> {
    jobs: &'a [Job],
    indices: HashMap<&'a str, usize>,
    /// For each job: what starts a workflow with it.
    starts: Vec<Vec<model::Trigger>>,
    /// For each job: what follows it.
    next: Vec<Vec<Flow>>,
    /// For each job: whether it names a trigger that could not be read.
    is_broken: Vec<bool>,
}

struct Flow {
    to: usize,
    condition: Condition,
    /// Where the trigger names the job before.
    span: Range<usize>,
}

impl<'a> Graph<'a> {
    fn new(jobs: &'a [Job]) -> Self {
        Self {
            jobs,
            indices: jobs.iter().enumerate().map(|(index, job)| (job.name.as_str(), index)).collect(),
            starts: vec![Vec::new(); jobs.len()],
            next: jobs.iter().map(|_| Vec::new()).collect(),
            is_broken: vec![false; jobs.len()],
        }
    }

    fn connect(&mut self, triggers: &[Trigger], reader: &mut Reader) {
        let known: HashMap<&str, &Trigger> = triggers.iter().map(|trigger| (trigger.name.as_str(), trigger)).collect();
        let mut used: HashMap<&str, &str> = HashMap::new();
        for (index, job) in self.jobs.iter().enumerate() {
            for (name, span) in &job.triggers {
                let Some(trigger) = known.get(name.as_str()) else {
                    let message = format!("there is no trigger {}", quoted(name));
                    let names = triggers.iter().map(|trigger| trigger.name.as_str());
                    reader.unknown(span, message, name, names, "add it to `triggers`");
                    self.is_broken[index] = true;
                    continue;
                };
                let other = used.insert(&trigger.name, &job.name);
                match &trigger.starts {
                    Some(Starts::Workflow(kind)) => {
                        if let (TriggerKind::Webhook(_), Some(other)) = (kind, other) {
                            let message = format!("the webhook {} starts {} already", quoted(name), quoted(other));
                            let hint = "a webhook starts one job: let the other follow it with a `success` trigger";
                            reader.error_with_hint(span, message, hint);
                        }
                        self.starts[index].push(model::Trigger { name: name.clone(), kind: kind.clone() });
                    }
                    Some(Starts::After { job, span, condition }) => {
                        if let Some(before) = self.indices.get(job.as_str()) {
                            let flow = Flow { to: index, condition: condition.clone(), span: span.clone() };
                            self.next[*before].push(flow);
                        }
                    }
                    None => self.is_broken[index] = true,
                }
            }
        }
        for trigger in triggers {
            if let Some(Starts::After { job, span, .. }) = &trigger.starts
                && !self.indices.contains_key(job.as_str())
            {
                let names = self.jobs.iter().map(|job| job.name.as_str());
                let message = format!("there is no job {}", quoted(job));
                reader.unknown(span, message, job, names, "write the name of a job");
            }
            if !used.contains_key(trigger.name.as_str()) {
                let message = format!("no job names the trigger {}", quoted(&trigger.name));
                reader.warning(&trigger.span, message, "name it in the `trigger:` of a job, or take it out");
            }
        }
    }

    /// Finds the ways that lead back to where they began. Goes without recursion: a chain can be as long as the file.
    fn refuse_circles(&self, reader: &mut Reader) {
        let mut done = vec![false; self.jobs.len()];
        for first in 0..self.jobs.len() {
            // The way to the job that is looked at: its jobs, and which of what follows each comes next.
            let mut way: Vec<(usize, usize)> = vec![(first, 0)];
            let mut on_way: HashMap<usize, usize> = HashMap::from([(first, 0)]);
            while let Some((job, turn)) = way.last_mut() {
                let flow = if done[*job] { None } else { self.next[*job].get(*turn) };
                let Some(flow) = flow else {
                    done[*job] = true;
                    on_way.remove(job);
                    way.pop();
                    continue;
                };
                *turn += 1;
                if let Some(start) = on_way.get(&flow.to) {
                    self.refuse_circle(&way[*start..], flow, reader);
                } else if !done[flow.to] {
                    on_way.insert(flow.to, way.len());
                    way.push((flow.to, 0));
                }
            }
        }
    }

    fn refuse_circle(&self, circle: &[(usize, usize)], flow: &Flow, reader: &mut Reader) {
        const SHOWN: usize = 10;
        let name = |job: usize| quoted(&self.jobs[job].name);
        let mut names: Vec<String> = circle.iter().take(SHOWN).map(|(job, _)| name(*job)).collect();
        if circle.len() > SHOWN {
            names.push("…".into());
        }
        names.push(name(flow.to));
        let message = format!("the jobs go round in a circle: {}", names.join(" -> "));
        reader.error_with_hint(&flow.span, message, "let one of them start by itself, and nothing lead back to it");
    }

    /// Some settings are the workflow's, and stand on its first job.
    fn check_first_jobs(&self, reader: &mut Reader) {
        for (index, job) in self.jobs.iter().enumerate() {
            if !self.starts[index].is_empty() || job.triggers.is_empty() || self.is_broken[index] {
                continue;
            }
            let concurrency = job.concurrency.as_ref().map(|(_, span)| ("concurrency", span));
            let isolation = job.isolation.as_ref().map(|(_, span)| ("isolation", span));
            for (key, span) in concurrency.into_iter().chain(isolation) {
                let hint = "set it on the job that the workflow begins with: it holds for all of it";
                let message = format!("`{key}` has no meaning on a job that follows another");
                reader.error_with_hint(span, message, hint);
            }
        }
    }

    fn workflows(self, isolation: Isolation, reader: &mut Reader) -> Vec<Workflow> {
        let mut bytes = 0;
        let mut workflows = Vec::new();
        for (first, job) in self.jobs.iter().enumerate().filter(|(index, _)| !self.starts[*index].is_empty()) {
            let order = self.following(first);
            bytes += order.iter().map(|index| STEP_BYTES + self.jobs[*index].step.expression.len()).sum::<usize>();
            if order.len() > MOST_STEPS {
                let message = format!("more than {MOST_STEPS} jobs follow {}", quoted(&job.name));
                reader.error_with_hint(&job.span, message, "do more in each of them, or split the project");
                continue;
            }
            if bytes > MOST_BYTES {
                let message = "the workflows of the project are larger than 256 MB";
                reader.error_with_hint(&job.span, message, "split the project");
                break;
            }
            workflows.push(Workflow {
                name: job.name.clone(),
                triggers: self.starts[first].clone(),
                start: job.name.clone(),
                steps: order.iter().map(|index| self.step(*index)).collect(),
                retry: Default::default(),
                concurrency: job.concurrency.as_ref().map(|(number, _)| *number),
                isolation: job.isolation.as_ref().map_or(isolation, |(isolation, _)| *isolation),
                initial_state: None,
                final_state_path: None,
            });
        }
        workflows
    }

    /// A job and all that can follow it, nearest first; at most one more than a workflow can have.
    fn following(&self, first: usize) -> Vec<usize> {
        let mut order = vec![first];
        let mut seen = HashSet::from([first]);
        let mut at = 0;
        while at < order.len() && order.len() <= MOST_STEPS {
            order.extend(self.next[order[at]].iter().map(|flow| flow.to).filter(|to| seen.insert(*to)));
            at += 1;
        }
        order
    }

    fn step(&self, index: usize) -> Step {
        let job = &self.jobs[index];
        let mut known = BTreeSet::new();
        let next = self.next[index]
            .iter()
            // Two triggers may say the same.
            .filter(|flow| known.insert((flow.to, matches!(flow.condition, Condition::OnSuccess))))
            .map(|flow| Edge { to: self.jobs[flow.to].name.clone(), condition: flow.condition.clone() })
            .collect();
        Step { id: job.name.clone(), kind: StepKind::Js(job.step.clone()), retry: job.retry.clone(), next }
    }
}
