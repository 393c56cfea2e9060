//! What `deno_core` writes behind V8's part of a snapshot, and how it must be for a snapshot that is made from another.
//!
//! V8 stores addresses of native functions and of sources as places in a list. `deno_core` puts that list together from
//! the ops and sources that were in the snapshot before, and those that came later. When it starts from a snapshot that
//! was made from another, it must make the same distinction as when that was made, and must have the first one's sources.
//! It writes neither.

/// The end of a snapshot as `deno_core` writes it: what stands behind the names of the extensions.
struct Tail<'a> {
    /// Where it begins in the snapshot.
    at: usize,
    ops: u64,
    sources: u64,
    /// Between the counts and the sources.
    middle: &'a [u8],
    source_texts: Vec<&'a [u8]>,
}

impl<'a> Tail<'a> {
    /// `last` is the name of the last extension in the snapshot.
    fn read(blob: &'a [u8], last: &str) -> Option<Self> {
        let end = blob.len().checked_sub(8)?;
        let start = u64::from_le_bytes(blob[end..].try_into().ok()?) as usize;
        let sidecar = blob.get(start..end)?;
        let mut name = (last.len() as u32).to_le_bytes().to_vec();
        name.extend_from_slice(last.as_bytes());
        let mut places = sidecar.windows(name.len()).enumerate().filter(|(_, window)| *window == name);
        let (place, _) = places.next()?;
        if places.next().is_some() {
            return None;
        }
        let at = place + name.len();
        let mut rest = Reader(&sidecar[at..]);
        let (ops, sources) = (rest.u64()?, rest.u64()?);
        let middle = rest.0;
        rest.u64()?;
        for _ in 0..rest.u32()? {
            rest.text()?;
            rest.bytes()?;
        }
        let middle = &middle[..middle.len() - rest.0.len()];
        let source_texts = (0..rest.u32()?).map(|_| rest.bytes()).collect::<Option<Vec<_>>>()?;
        rest.0.is_empty().then_some(Self { at: start + at, ops, sources, middle, source_texts })
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    /// The highest bit of the length says whether the text is ASCII.
    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? & !(1 << 31);
        self.take(length as usize)
    }
}

/// Adds what `deno_core` leaves out of a snapshot that is made from the runtime's. None if either has another form than
/// is known here.
pub fn complete(blob: &[u8]) -> Option<Box<[u8]>> {
    let first = Tail::read(deno_snapshots::CLI_SNAPSHOT?, "deno_web_worker")?;
    let mut second = Tail::read(blob, "fnhost")?;
    // The last texts are those of `with_sources`. It leaves out modules that its own code loaded late, too.
    let late = [deno_snapshots::RESIDUAL_LAZY_ESM, deno_snapshots::RESIDUAL_LAZY_JS];
    let at = second.source_texts.len().checked_sub(late[0].len() + late[1].len())?;
    for (place, (_, text)) in second.source_texts[at..].iter_mut().zip(late[0]) {
        *place = text.as_bytes();
    }
    let mut whole = blob[..second.at].to_vec();
    whole.extend_from_slice(&first.ops.to_le_bytes());
    whole.extend_from_slice(&first.sources.to_le_bytes());
    whole.extend_from_slice(second.middle);
    let texts: Vec<_> = first.source_texts.iter().chain(&second.source_texts).collect();
    whole.extend_from_slice(&(texts.len() as u32).to_le_bytes());
    for text in texts {
        whole.extend_from_slice(&(text.len() as u32).to_le_bytes());
        whole.extend_from_slice(text);
    }
    whole.extend_from_slice(&blob[blob.len() - 8..]);
    Some(whole.into())
}
