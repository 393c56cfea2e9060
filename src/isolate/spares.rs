//! Which isolates are kept warm.
//!
//! Runs come in bursts of the same few adaptor sets, so the sets used last have spares, the same number each. Here is
//! only the book-keeping: what a spare is does not matter.

use std::mem;

use super::host::AdaptorKey;

/// Which runs a spare is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    pub adaptors: AdaptorKey,
    /// Limit of V8's heap in bytes.
    pub heap: usize,
}

/// The spares of a pool, and the one that is being made.
pub struct Spares<T> {
    per_kind: usize,
    /// How many kinds may have spares.
    kinds: usize,
    /// The kind used last first.
    ready: Vec<(Kind, Vec<T>)>,
    making: Option<(Kind, T)>,
}

impl<T> Spares<T> {
    /// Room for `total` spares, `per_kind` of each kind.
    pub fn new(per_kind: usize, total: usize) -> Self {
        let per_kind = per_kind.min(total);
        let kinds = total.checked_div(per_kind).unwrap_or(0);
        Self { per_kind, kinds, ready: Vec::new(), making: None }
    }

    /// How many are ready.
    pub fn len(&self) -> usize {
        self.ready.iter().map(|(_, spares)| spares.len()).sum()
    }

    /// A spare of this kind, if one is ready.
    pub fn take(&mut self, kind: &Kind) -> Option<T> {
        self.touch(kind);
        self.ready.first_mut()?.1.pop()
    }

    /// From now on the kind counts as the one used last. What it drives out is dropped.
    pub fn touch(&mut self, kind: &Kind) {
        match self.ready.iter().position(|(known, _)| known == kind) {
            Some(at) => self.ready[..=at].rotate_right(1),
            None => self.ready.insert(0, (kind.clone(), Vec::new())),
        }
        self.ready.truncate(self.kinds);
    }

    /// The kind of which another spare should be made, if none is being made.
    pub fn wanted(&self) -> Option<Kind> {
        if self.making.is_some() {
            return None;
        }
        self.ready.iter().find(|(_, spares)| spares.len() < self.per_kind).map(|(kind, _)| kind.clone())
    }

    /// Keeps a spare that is not ready yet.
    pub fn begin(&mut self, kind: Kind, spare: T) {
        self.making = Some((kind, spare));
    }

    /// The spare that was being made is ready, or, if it came to nothing, its kind gets none until it is used again.
    pub fn finish(&mut self, made: bool) {
        let Some((kind, spare)) = self.making.take() else { return };
        if !made {
            self.ready.retain(|(known, _)| *known != kind);
        } else if let Some((_, spares)) = self.ready.iter_mut().find(|(known, _)| *known == kind) {
            spares.push(spare);
        }
    }

    /// Takes out all, that which is being made as well. Others are made when they are wanted.
    #[must_use = "dropping an isolate takes time that others need the lock for"]
    pub fn give_up(&mut self) -> Vec<T> {
        let ready = self.ready.iter_mut().flat_map(|(_, spares)| mem::take(spares));
        ready.chain(self.making.take().map(|(_, spare)| spare)).collect()
    }

    /// Drops all spares and wants none.
    pub fn clear(&mut self) {
        *self = Self { per_kind: 0, kinds: 0, ready: Vec::new(), making: mem::take(&mut self.making) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str) -> Kind {
        Kind { adaptors: vec![name.into()], heap: 1 }
    }

    /// Makes what is wanted until nothing is.
    fn fill(spares: &mut Spares<u32>, next: &mut u32) {
        while let Some(kind) = spares.wanted() {
            *next += 1;
            spares.begin(kind, *next);
            assert_eq!(spares.wanted(), None, "one at a time");
            spares.finish(true);
        }
    }

    #[test]
    fn the_kinds_used_last_have_spares() {
        let (mut spares, mut made) = (Spares::new(2, 4), 0);
        assert_eq!(spares.wanted(), None);
        for name in ["a", "b", "c"] {
            assert_eq!(spares.take(&kind(name)), None);
            fill(&mut spares, &mut made);
        }
        assert_eq!((spares.len(), made), (4, 6));
        assert!(spares.take(&kind("b")).is_some());
        assert_eq!(spares.take(&kind("a")), None, "c and b came later");
        assert!(spares.take(&kind("b")).is_some());
        assert_eq!(spares.take(&kind("c")), None, "a drove it out");
    }

    #[test]
    fn a_spare_is_given_once_and_to_its_kind() {
        let (mut spares, mut made) = (Spares::new(1, 3), 0);
        spares.take(&kind("a"));
        fill(&mut spares, &mut made);
        assert_eq!(spares.take(&Kind { heap: 2, ..kind("a") }), None);
        assert_eq!(spares.take(&kind("a")), Some(1));
        assert_eq!(spares.take(&kind("a")), None);
    }

    #[test]
    fn what_cannot_be_made_is_not_tried_for_ever() {
        let mut spares = Spares::new(1, 2);
        spares.take(&kind("a"));
        spares.begin(kind("a"), 1);
        spares.finish(false);
        assert_eq!((spares.wanted(), spares.len()), (None, 0));
        spares.take(&kind("a"));
        assert_eq!(spares.wanted(), Some(kind("a")));
    }

    #[test]
    fn a_pool_without_spares_wants_none() {
        for mut spares in [Spares::new(0, 4), Spares::new(4, 0)] {
            assert_eq!(spares.take(&kind("a")), None::<u32>);
            assert_eq!(spares.wanted(), None);
        }
        let (mut spares, mut made) = (Spares::new(1, 2), 0);
        spares.take(&kind("a"));
        fill(&mut spares, &mut made);
        assert_eq!((spares.give_up(), spares.len(), spares.wanted()), (vec![1], 0, Some(kind("a"))));
        spares.clear();
        assert_eq!((spares.take(&kind("a")), spares.wanted()), (None, None));
    }
}
