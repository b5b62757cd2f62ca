//! What tells one model from another in a plan.

use prost::Message;
use vitq_onnx::Model;

/// FNV-1a (64 bit) over the encoded model, as 16 hexadecimal digits. It finds mistakes, not attacks.
pub fn fingerprint(model: &Model) -> String {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = model.encode_to_vec();
    let hash = bytes.iter().fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    });
    format!("{hash:016x}")
}
