//! Frames as bytes (RFC 6455, section 5.2): always whole, always in the shortest length.
use super::{Opcode, mask};
use bytes::Bytes;
use tungstenite::protocol::frame::{FrameHeader, coding::OpCode};

/// The longest header without a mask.
const HEADER_MAX: usize = 10;

/// The header of an unmasked frame, and how many bytes of the array it takes (2, 4 or 10).
///
/// Of `opcode` the low four bits count; `len` is the payload in bytes.
pub fn header(opcode: u8, fin: bool, rsv1: bool, len: usize) -> ([u8; HEADER_MAX], usize) {
    let opcode = OpCode::from(opcode & 0x0F);
    let header = FrameHeader { is_final: fin, rsv1, rsv2: false, rsv3: false, opcode, mask: None };
    let mut array = [0; HEADER_MAX];
    header.format(len as u64, &mut array.as_mut_slice()).expect("ten bytes hold every header without a mask");
    (array, header.len(len as u64))
}

/// A whole unmasked frame.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    whole(opcode, false, payload)
}

/// The payload of a whole unmasked frame, without a copy.
pub fn payload(frame: &Bytes) -> Bytes {
    let header = match frame[1] {
        127 => 10,
        126 => 4,
        _ => 2,
    };
    frame.slice(header..)
}

/// A whole unmasked frame, with RSV1 where the payload is deflated.
pub(in crate::ws) fn whole(opcode: Opcode, rsv1: bool, payload: &[u8]) -> Bytes {
    let (array, size) = header(opcode as u8, true, rsv1, payload.len());
    let mut bytes = Vec::with_capacity(size + payload.len());
    bytes.extend_from_slice(&array[..size]);
    bytes.extend_from_slice(payload);
    bytes.into()
}

/// A whole unmasked frame whose payload `fill` appends to the vector it is given: no second copy.
///
/// `fill` must only append. `size_hint` is the payload's likely size in bytes.
pub fn frame_with(opcode: Opcode, size_hint: usize, fill: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = Vec::with_capacity(HEADER_MAX + size_hint);
    bytes.resize(HEADER_MAX, 0);
    fill(&mut bytes);
    let len = bytes.len().checked_sub(HEADER_MAX).expect("fill only appends");
    let (array, size) = header(opcode as u8, true, false, len);
    bytes[HEADER_MAX - size..HEADER_MAX].copy_from_slice(&array[..size]);
    let mut bytes = Bytes::from(bytes);
    let _unused = bytes.split_to(HEADER_MAX - size);
    bytes
}

/// A whole frame masked with `key`, as a client sends it: for injection towards a backend.
pub fn masked_frame(opcode: Opcode, payload: &[u8], key: [u8; 4]) -> Bytes {
    let (mut array, size) = header(opcode as u8, true, false, payload.len());
    array[1] |= 0x80;
    let mut bytes = Vec::with_capacity(size + key.len() + payload.len());
    bytes.extend_from_slice(&array[..size]);
    bytes.extend_from_slice(&key);
    bytes.extend_from_slice(payload);
    mask(&mut bytes[size + key.len()..], &mut key.clone());
    bytes.into()
}
