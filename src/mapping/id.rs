//! Ids of rows. A row gets the same id each time it is read. The ids of rows without a key sort by time.

use crate::bigquery::value::Value;
use crate::time::Micros;
use sha2::{Digest, Sha256};

/// Sixty-four characters in the order of their bytes, so that encoded numbers sort as text.
const SORTED_ALPHABET: &[u8; 64] = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";
/// The characters of an encoded cursor (64 bits), with which ids of rows without a key start.
pub const CURSOR_CHARACTERS: usize = 11;
/// Bytes of the content's hash that go into an id: 96 bits, 16 characters.
const HASH_BYTES: usize = 12;
/// Bits of the hash that go into an integer id.
const INTEGER_BITS: u32 = 53;
/// Ids longer than this are replaced by their hash; Harper refuses keys of about 1,900 characters.
const KEY_BYTES_MAX: usize = 1_024;
/// Bytes of a long key's hash that go into its id.
const HASHED_KEY_BYTES: usize = 30;
/// Marks an id that is the hash of a long key; keys that start with it are escaped.
const HASHED: u8 = b'#';
const ESCAPE: u8 = b'\\';
const SEPARATOR: u8 = b'|';

/// The SHA-256 of a row's canonical encoding.
pub type ContentHash = [u8; 32];

/// Hashes a row's canonical encoding.
pub fn content_hash(canonical: &[u8]) -> ContentHash {
    Sha256::digest(canonical).into()
}

/// Appends the id of a row without a key: the cursor, 96 bits of the content's hash, the row's number among identical
/// rows (0 for the first), and the era in which it was written. The number and the era are left out if they are 0.
pub fn write_keyless(out: &mut Vec<u8>, cursor: Micros, hash: &ContentHash, occurrence: u32, era: u32) {
    write_cursor(out, cursor);
    write_bits(out, hash.get(..HASH_BYTES).unwrap_or_default());
    if occurrence > 0 || era > 0 {
        out.push(b'~');
        out.extend_from_slice(occurrence.to_string().as_bytes());
    }
    if era > 0 {
        out.push(b'~');
        out.extend_from_slice(era.to_string().as_bytes());
    }
}

fn write_cursor(out: &mut Vec<u8>, cursor: Micros) {
    // Flipping the sign bit makes negative instants sort before positive ones.
    let sortable = cursor.0 as u64 ^ (1 << 63);
    out.extend((0..CURSOR_CHARACTERS).rev().map(|place| sorted_character((sortable >> (6 * place)) as u32)));
}

/// Returns the inclusive bounds of the ids of rows without a key whose cursors are after `after` and not after `until`.
pub fn bounds(after: Option<Micros>, until: Option<Micros>) -> (String, String) {
    let text = |cursor: Micros| {
        let mut text = Vec::with_capacity(CURSOR_CHARACTERS);
        write_cursor(&mut text, cursor);
        String::from_utf8_lossy(&text).into_owned()
    };
    // The tilde sorts after all characters of ids.
    let last = until.map(text).unwrap_or_default() + "~";
    (after.map_or_else(|| "-".to_owned(), |after| text(after.plus(1))), last)
}

/// Returns the cursor that the id of a row without key starts with.
pub fn cursor_of(id: &str) -> Option<Micros> {
    let digits = id.as_bytes().get(..CURSOR_CHARACTERS)?;
    let sortable = digits.iter().try_fold(0_u64, |bits, digit| {
        let value = SORTED_ALPHABET.binary_search(digit).ok()?;
        Some(bits << 6 | value as u64)
    })?;
    Some(Micros((sortable ^ (1 << 63)) as i64))
}

/// Returns the integer id of a row without a key: 53 bits of a hash of its content and its number among identical rows.
pub fn integer_of_row(hash: &ContentHash, occurrence: u32) -> i64 {
    if occurrence == 0 {
        return integer_of(hash);
    }
    let mut hasher = Sha256::new_with_prefix(hash);
    hasher.update(occurrence.to_be_bytes());
    integer_of(&hasher.finalize().into())
}

/// Returns the integer id of a row with a key: 53 bits of the hash of its text id.
pub fn integer_of_key(id: &[u8]) -> i64 {
    integer_of(&content_hash(id))
}

/// Returns 53 bits of a hash, which are exact in a double; never zero, because Harper loses records whose id is zero.
fn integer_of(hash: &ContentHash) -> i64 {
    let bits = hash.iter().take(8).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    i64::try_from(bits >> (64 - INTEGER_BITS)).unwrap_or(1).max(1)
}

/// Appends an integer id.
pub fn write_integer(out: &mut Vec<u8>, id: i64) {
    out.extend_from_slice(id.to_string().as_bytes());
}

/// Appends four characters for each three bytes.
fn write_bits(out: &mut Vec<u8>, bytes: &[u8]) {
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        out.extend([18, 12, 6, 0].map(|shift| sorted_character(bits >> shift)));
    }
}

fn sorted_character(bits: u32) -> u8 {
    SORTED_ALPHABET.get((bits & 63) as usize).copied().unwrap_or(b'-')
}

/// Appends the id of a row with a key: the canonical texts of its parts, joined so that different keys never give the
/// same id. Returns whether the id is a hash because the texts are too long.
pub fn write_keyed<'v>(out: &mut Vec<u8>, parts: impl IntoIterator<Item = &'v Value<'v>>) -> bool {
    let start = out.len();
    for (index, part) in parts.into_iter().enumerate() {
        if index > 0 {
            out.push(SEPARATOR);
        }
        write_part(out, part);
    }
    if out.len() == start {
        // Harper refuses an empty id.
        out.extend_from_slice(b"\\E");
    }
    let is_long = out.len() - start > KEY_BYTES_MAX;
    if is_long {
        let hash: ContentHash = Sha256::digest(out.get(start..).unwrap_or_default()).into();
        out.truncate(start);
        out.push(HASHED);
        write_bits(out, hash.get(..HASHED_KEY_BYTES).unwrap_or_default());
    }
    is_long
}

fn write_part(out: &mut Vec<u8>, part: &Value<'_>) {
    match part {
        Value::Null => out.extend_from_slice(b"\\N"),
        Value::Int(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::Decimal(text) => out.extend_from_slice(text.as_bytes()),
        Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Instant(instant) => instant.write_rfc3339(out),
        Value::Text(text) | Value::Json(text) => {
            let mut plain = Vec::with_capacity(text.raw.len());
            text.unescape_into(&mut plain);
            let first = out.len();
            for byte in plain {
                if matches!(byte, ESCAPE | SEPARATOR) || (byte == HASHED && out.len() == first) {
                    out.push(ESCAPE);
                }
                out.push(byte);
            }
        }
        // The projection refuses these as keys.
        Value::Float(_) | Value::Interval(_) | Value::Range(_) | Value::Record(..) | Value::Array(..) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bigquery::json::Text;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn keyless(cursor: i64, hash: u8, occurrence: u32) -> String {
        let mut out = Vec::new();
        write_keyless(&mut out, Micros(cursor), &[hash; 32], occurrence, 0);
        String::from_utf8(out).unwrap()
    }

    fn keyed(parts: &[Option<&str>]) -> String {
        let escaped: Vec<Option<Vec<u8>>> = parts
            .iter()
            .map(|part| {
                part.map(|text| {
                    let mut json = Vec::new();
                    crate::bigquery::json::write_string(&mut json, text.as_bytes());
                    json[1..json.len() - 1].to_vec()
                })
            })
            .collect();
        let values: Vec<Value<'_>> = escaped
            .iter()
            .map(|part| {
                part.as_ref()
                    .map_or(Value::Null, |raw| Value::Text(Text { raw, escaped: raw.contains(&b'\\') }))
            })
            .collect();
        let mut out = Vec::new();
        write_keyed(&mut out, &values);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_forms_of_ids_stay_as_they_are() {
        assert_eq!(keyless(0, 0, 0), "7----------".to_owned() + "----------------");
        assert_eq!(keyless(1_704_067_200_000_000, 0xab, 0), keyless(1_704_067_200_000_000, 0xab, 0));
        assert_eq!(keyless(0, 0xff, 12).len(), 30);
        assert_eq!(keyed(&[Some("367000001")]), "367000001");
        assert_eq!(keyed(&[Some("a|b"), Some("c\\")]), "a\\|b|c\\\\");
        assert_eq!(keyed(&[None, Some("")]), "\\N|");
        assert_eq!(keyed(&[Some("")]), "\\E");
        assert_eq!(keyed(&[Some("#a")]), "\\#a");
        assert_eq!(keyed(&[Some(&"x".repeat(2_000))]).len(), 41);
    }

    #[test]
    fn integer_ids_stay_as_they_are_are_never_zero_and_tell_identical_rows_apart() {
        assert_eq!(integer_of_row(&[0; 32], 0), 1);
        assert_eq!(integer_of_row(&[0xff; 32], 0), (1 << 53) - 1);
        assert_eq!(integer_of_key(b"367000001"), 0x000a_6a60_761a_34af);
        let copies: HashSet<i64> = (0..1_000).map(|copy| integer_of_row(&[7; 32], copy)).collect();
        assert_eq!(copies.len(), 1_000);
    }

    #[test]
    fn the_ids_of_a_range_of_cursors_lie_within_its_bounds() {
        let ids = [-5, 0, 5, 9].map(|cursor| keyless(cursor, 0xff, 7));
        let within = |after: Option<i64>, until: Option<i64>| {
            let (first, last) = bounds(after.map(Micros), until.map(Micros));
            ids.iter().filter(|id| (&first..=&last).contains(id)).count()
        };
        assert_eq!([within(None, None), within(Some(0), None), within(Some(-5), Some(5))], [4, 2, 2]);
        assert_eq!([within(Some(0), Some(4)), within(None, Some(-5))], [0, 1]);
    }

    #[test]
    fn the_alphabet_sorts_as_bytes() {
        assert!(SORTED_ALPHABET.is_sorted());
        assert_eq!(SORTED_ALPHABET.iter().collect::<HashSet<_>>().len(), 64);
    }

    proptest! {
        #[test]
        fn ids_sort_by_time(a in any::<i64>(), b in any::<i64>(), hash_a in any::<u8>(), hash_b in any::<u8>()) {
            prop_assume!(a != b);
            prop_assert_eq!(a.cmp(&b), keyless(a, hash_a, 0).cmp(&keyless(b, hash_b, 3)));
        }

        #[test]
        fn different_keys_have_different_ids(
            a in prop::collection::vec(prop::option::of("[a|\\\\N#E]{0,3}"), 2),
            b in prop::collection::vec(prop::option::of("[a|\\\\N#E]{0,3}"), 2),
        ) {
            let parts = |key: &[Option<String>]| keyed(&key.iter().map(Option::as_deref).collect::<Vec<_>>());
            prop_assert_eq!(a == b, parts(&a) == parts(&b));
        }
    }
}
