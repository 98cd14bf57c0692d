//! Which partition a key belongs to: murmur2 as Java's Kafka clients and Flink compute it, so
//! that every backend and every foreign client puts equal keys into the same partition.

const SEED: u32 = 0x9747_b28c;
const MULTIPLIER: u32 = 0x5bd1_e995;

/// The partition of `key` in a topic of `partitions` partitions; zero where there are none.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    // Kafka clears the sign bit instead of taking the absolute value.
    (murmur2(key) & 0x7fff_ffff).checked_rem(partitions).unwrap_or(0)
}

fn murmur2(bytes: &[u8]) -> u32 {
    // Java's lengths are 32 bits wide, and no key comes near that.
    let mut hash = SEED ^ bytes.len() as u32;
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        let mixed = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        let mixed = (mixed ^ (mixed >> 24)).wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed;
    }
    if !tail.is_empty() {
        for (place, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest`, as signed integers like Java's.
    #[test]
    fn murmur2_agrees_with_kafkas_java_client() {
        let vectors: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, hash) in vectors {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn a_negative_hash_gives_a_partition_of_the_topic() {
        // The hash of "21" is negative: 0xc5f2f8ec, without its sign 0x45f2f8ec = 1173551340.
        assert_eq!(partition_of(b"21", 7), 1_173_551_340 % 7);
        assert_eq!(partition_of(b"21", 1), 0);
        assert_eq!(partition_of(b"21", 0), 0);
    }

    #[test]
    fn keys_of_every_length_spread_over_the_partitions() {
        let mut counts = [0_u32; 8];
        for number in 0..8000_u32 {
            let key = format!("{number:b}");
            counts[partition_of(key.as_bytes(), 8) as usize] += 1;
        }
        assert!(counts.iter().all(|&count| (800..1200).contains(&count)), "{counts:?}");
    }
}
