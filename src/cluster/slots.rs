//! Hash slots of a Redis Cluster (Redis Cluster specification, "Key distribution model").

/// Slots of a Redis Cluster.
pub const SLOTS: u16 = 16_384;

/// The slot of a key: CRC-16/XMODEM of what stands between its first braces, or of all of it.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|b| *b == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|b| *b == b'}').filter(|length| *length > 0).map(|length| &rest[..length])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        let mut crc = crc ^ (u16::from(*byte) << 8);
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
        crc
    })
}

/// Some of the slots: ranges that do not overlap, first and last included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slots(pub Vec<(u16, u16)>);

impl Slots {
    /// All of them: a Redis that is no cluster.
    pub fn all() -> Slots {
        Slots(vec![(0, SLOTS - 1)])
    }

    /// Whether this slot is among them.
    pub fn contains(&self, slot: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As `CLUSTER KEYSLOT` answers.
        assert_eq!((slot_of(b"foo"), slot_of(b"{foo}bar"), slot_of(b"x{}y")), (12182, 12182, slot_of(b"x{}y")));
        assert_eq!(slot_of(b"123456789"), 12739);
        assert!(Slots::all().contains(16_383) && !Slots::default().contains(0));
    }
}
