//! Memory behind `Blob` and `File`.
//!
//! The runtime keeps the bytes of blobs in Rust, where neither V8's heap limit nor the allocator of ArrayBuffers sees
//! them. Here they are charged to the run's account of buffers for as long as they live.

#![allow(unsafe_code)] // the op macro writes unsafe glue

use std::sync::Arc;

use async_trait::async_trait;
use deno_core::{JsBuffer, OpState, op2};
use deno_error::JsErrorBox;
use deno_runtime::deno_web::{BlobPart, BlobStoreTrait};

use super::limits::BufferAccount;

struct ChargedPart {
    bytes: Vec<u8>,
    account: Arc<BufferAccount>,
}

impl std::fmt::Debug for ChargedPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

#[async_trait]
impl BlobPart for ChargedPart {
    async fn read<'a>(&'a self) -> &'a [u8] {
        &self.bytes
    }

    fn size(&self) -> usize {
        self.bytes.len()
    }
}

impl Drop for ChargedPart {
    fn drop(&mut self) {
        self.account.release(self.bytes.len());
    }
}

/// Keeps a copy of `data` for a blob and returns its id. In place of the runtime's own op.
#[op2]
#[string]
pub fn op_fnhost_blob_part(state: &mut OpState, #[buffer] data: JsBuffer) -> Result<String, JsErrorBox> {
    let account = state.borrow::<Arc<BufferAccount>>().clone();
    if !account.reserve(data.len()) {
        return Err(JsErrorBox::range_error("Blob allocation failed"));
    }
    let part = ChargedPart { bytes: data.to_vec(), account };
    Ok(state.borrow::<Arc<dyn BlobStoreTrait>>().insert_part(Arc::new(part)).to_string())
}
