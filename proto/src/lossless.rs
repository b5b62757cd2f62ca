use std::ops::{Deref, DerefMut};

use bytes::{Buf, BufMut};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, encode_key, skip_field},
};

/// The field numbers that a message knows; the build script implements it for every message.
pub trait KnownTags {
    /// Field numbers, members of oneofs included.
    const TAGS: &'static [u32];
}

/// A message together with the fields of it that the schema does not know.
///
/// A model may come from a newer ONNX than this crate, or carry a vendor's fields: they are kept
/// byte for byte and written back behind the known fields. Use it as the message it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lossless<M> {
    message: M,
    unknown: Vec<u8>,
}

impl<M> Lossless<M> {
    /// The unknown fields as they stood in the file, keys and values.
    pub fn unknown(&self) -> &[u8] {
        &self.unknown
    }

    /// Replaces the unknown fields; `fields` is encoded protobuf, as [`unknown`](Self::unknown) gives it.
    pub fn set_unknown(&mut self, fields: Vec<u8>) {
        self.unknown = fields;
    }

    /// The message alone; unknown fields are dropped.
    pub fn into_inner(self) -> M {
        self.message
    }
}

impl<M> From<M> for Lossless<M> {
    fn from(message: M) -> Self {
        Self {
            message,
            unknown: Vec::new(),
        }
    }
}

impl<M> Deref for Lossless<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.message
    }
}

impl<M> DerefMut for Lossless<M> {
    fn deref_mut(&mut self) -> &mut M {
        &mut self.message
    }
}

impl<M: Message + KnownTags> Message for Lossless<M> {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.message.encode_raw(buf);
        buf.put_slice(&self.unknown);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if M::TAGS.contains(&tag) {
            return self.message.merge_field(tag, wire_type, buf, ctx);
        }
        let start = self.unknown.len();
        encode_key(tag, wire_type, &mut self.unknown);
        let skipped = skip_field(
            wire_type,
            tag,
            &mut Recorder {
                source: buf,
                record: &mut self.unknown,
            },
            ctx,
        );
        if skipped.is_err() {
            self.unknown.truncate(start);
        }
        skipped
    }

    fn encoded_len(&self) -> usize {
        self.message.encoded_len() + self.unknown.len()
    }

    fn clear(&mut self) {
        self.message.clear();
        self.unknown.clear();
    }
}

/// Copies what is read: prost skips an unknown field (and guards the depth of groups), this keeps it.
struct Recorder<'a, B> {
    source: &'a mut B,
    record: &'a mut Vec<u8>,
}

impl<B: Buf> Buf for Recorder<'_, B> {
    fn remaining(&self) -> usize {
        self.source.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.source.chunk()
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let chunk = self.source.chunk();
            let step = count.min(chunk.len());
            self.record.extend_from_slice(&chunk[..step]);
            self.source.advance(step);
            count -= step;
        }
    }
}
