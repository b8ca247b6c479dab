//! The forms in which `schemaOverrides` can store a column's values. Each form is named after its type; `Any` is the
//! default form.

use crate::bigquery::json::{self, Text};
use crate::bigquery::schema::{Field, Type};
use crate::bigquery::value::{EXACT_INTEGER_MAX, Patches, Unreadable, Value, parse_float};
use crate::config::HarperType;
use crate::time::Micros;

/// Texts with more digits than BIGNUMERIC allows do not count as integers.
const DIGITS_MAX: usize = 76;

/// Returns the types that a column's values can be stored as.
pub fn allowed_types(field: &Field) -> &'static [HarperType] {
    use HarperType::{Any, BigInt, Boolean, Bytes, Date, Float, Int, Long, String};
    if field.repeated {
        return &[String, Any];
    }
    match field.kind {
        Type::Int64 | Type::Float64 | Type::Numeric | Type::BigNumeric => {
            &[Int, Long, Float, BigInt, String, Any]
        }
        Type::Bool => &[String, Boolean, Any],
        Type::String => &[Int, Long, Float, BigInt, String, Boolean, Date, Any],
        Type::Bytes => &[String, Bytes, Any],
        Type::Timestamp => &[Long, BigInt, String, Date, Any],
        Type::Date | Type::DateTime => &[String, Date, Any],
        Type::Time
        | Type::Geography
        | Type::Interval
        | Type::Json
        | Type::Range(_)
        | Type::Record(_)
        | Type::Unknown(_) => &[String, Any],
    }
}

/// Returns the types of a cursor column that keep the order and the precision of its instants. Tables with a key need
/// one of these, because newer versions of rows replace older ones.
pub fn ordered_types(field: &Field) -> &'static [HarperType] {
    use HarperType::{Any, BigInt, Date, Float, Int, Long, String};
    match field.kind {
        Type::Int64 => &[Int, Long, Float, BigInt, Any],
        Type::Timestamp => &[Long, BigInt, String, Any],
        Type::Date => &[String, Date, Any],
        _ => &[String, Any],
    }
}

/// Returns the form of an allowed type for a column; `Any` if the type is the component's own choice.
pub fn resolve(wanted: HarperType, field: &Field) -> HarperType {
    if wanted == own_type(field) { HarperType::Any } else { wanted }
}

/// Converts a value that is not NULL to the number that stands for it, milliseconds for a Date.
///
/// # Errors
/// When the form has no such value.
pub fn number(form: HarperType, value: &Value<'_>) -> Result<f64, Unreadable> {
    let found = match form {
        HarperType::Int => whole(value).and_then(|whole| i32::try_from(whole).ok()).map(f64::from),
        HarperType::Long => {
            whole(value).filter(|whole| whole.unsigned_abs() <= EXACT_INTEGER_MAX).map(|whole| whole as f64)
        }
        HarperType::Float => double(value),
        HarperType::Date => millis(value).map(|millis| millis as f64),
        HarperType::BigInt
        | HarperType::String
        | HarperType::Boolean
        | HarperType::Bytes
        | HarperType::Any => None,
    };
    found.ok_or_else(|| misfit(form))
}

/// Appends a value that is not NULL as the JSON that stands for it: digits for a bigint, base64 for bytes.
///
/// # Errors
/// When the form has no such value.
pub fn write_json(form: HarperType, value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), Unreadable> {
    match form {
        HarperType::BigInt => {
            let digits = digits(value).ok_or_else(|| misfit(form))?;
            if matches!(digits.as_str(), "0" | "-0") {
                out.push(b'0');
            } else {
                json::write_string(out, digits.as_bytes());
            }
            Ok(())
        }
        HarperType::String => write_text(value, out),
        HarperType::Boolean => {
            let truth = truth(value).ok_or_else(|| misfit(form))?;
            out.extend_from_slice(if truth { b"true" } else { b"false" });
            Ok(())
        }
        HarperType::Bytes => {
            let encoded = base64(value).ok_or_else(|| misfit(form))?;
            json::write_string(out, &encoded);
            Ok(())
        }
        HarperType::Int | HarperType::Long | HarperType::Float | HarperType::Date | HarperType::Any => {
            Err(misfit(form))
        }
    }
}

fn misfit(form: HarperType) -> Unreadable {
    let name = form.name();
    Unreadable { column: String::new(), expected: format!("{name}, which schemaOverrides asks for") }
}

/// Returns the type that stands for the component's default form.
pub fn own_type(field: &Field) -> HarperType {
    if field.repeated {
        return HarperType::Any;
    }
    match field.kind {
        Type::Float64 => HarperType::Float,
        Type::Bool => HarperType::Boolean,
        Type::String
        | Type::Bytes
        | Type::Timestamp
        | Type::Date
        | Type::Time
        | Type::DateTime
        | Type::Geography
        | Type::Interval
        | Type::Unknown(_) => HarperType::String,
        Type::Int64 | Type::Numeric | Type::BigNumeric | Type::Json | Type::Range(_) | Type::Record(_) => {
            HarperType::Any
        }
    }
}

fn plain<'a>(text: &Text<'a>) -> Option<&'a str> {
    if text.escaped { None } else { std::str::from_utf8(text.raw).ok() }
}

/// Whether the text is an integer as JSON writes it: without `+` and leading zeros, so that nothing is lost.
fn is_integer(text: &str) -> bool {
    json::is_number(text.as_bytes()) && !text.contains(['.', 'e', 'E'])
}

fn whole(value: &Value<'_>) -> Option<i64> {
    match value {
        Value::Int(whole) => Some(*whole),
        Value::Instant(instant) => Some(instant.0),
        Value::Float(double) => whole_of_double(*double),
        Value::Decimal(text) => text.parse().ok(),
        Value::Text(text) => plain(text).filter(|text| is_integer(text))?.parse().ok(),
        _ => None,
    }
}

/// Returns a double as an integer, if it is one and INT64 can hold it.
fn whole_of_double(double: f64) -> Option<i64> {
    let limit = -(i64::MIN as f64);
    (double.fract() == 0.0 && (-limit..limit).contains(&double)).then_some(double as i64)
}

fn double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Int(whole) => {
            let double = *whole as f64;
            (whole_of_double(double) == Some(*whole)).then_some(double)
        }
        Value::Float(double) => Some(*double),
        Value::Decimal(text) => text.parse().ok(),
        Value::Text(text) => {
            let text = plain(text)?;
            let double = parse_float(text)?;
            // A number beyond the range of doubles must not become infinite.
            (double.is_finite() || !json::is_number(text.as_bytes())).then_some(double)
        }
        _ => None,
    }
}

fn digits(value: &Value<'_>) -> Option<String> {
    match value {
        Value::Decimal(text) => is_integer(text).then(|| (*text).to_owned()),
        Value::Text(text) => {
            plain(text).filter(|text| text.len() <= DIGITS_MAX && is_integer(text)).map(str::to_owned)
        }
        _ => whole(value).map(|whole| whole.to_string()),
    }
}

fn truth(value: &Value<'_>) -> Option<bool> {
    let Value::Text(text) = value else { return None };
    match plain(text)? {
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Returns the millisecond that the instant lies in. A civil time is taken as UTC.
fn millis(value: &Value<'_>) -> Option<i64> {
    let instant = match value {
        Value::Instant(instant) => *instant,
        Value::Text(text) => Micros::parse(plain(text)?)?,
        _ => return None,
    };
    Some(instant.0.div_euclid(1_000))
}

/// Returns the base64 of bytes, if it is valid.
fn base64(value: &Value<'_>) -> Option<Vec<u8>> {
    let Value::Text(text) = value else { return None };
    let mut encoded = Vec::with_capacity(text.raw.len());
    text.unescape_into(&mut encoded);
    let digits = encoded.strip_suffix(b"==").or_else(|| encoded.strip_suffix(b"=")).unwrap_or(&encoded);
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    (encoded.len() % 4 == 0 && digits.iter().all(is_digit)).then_some(encoded)
}

/// Appends a value as a JSON string. A composed value becomes its JSON text.
fn write_text(value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), Unreadable> {
    match value {
        Value::Int(whole) => json::write_string(out, whole.to_string().as_bytes()),
        Value::Decimal(text) => json::write_string(out, text.as_bytes()),
        Value::Bool(truth) => json::write_string(out, if *truth { b"true" } else { b"false" }),
        Value::Float(double) => json::write_string(out, text_of_double(*double).as_bytes()),
        Value::Json(text) => Value::Text(*text).write_json(out, &mut Patches::default())?,
        Value::Record(..) | Value::Array(..) | Value::Range(_) => {
            let mut document = Vec::new();
            value.write_json(&mut document, &mut Patches::within_text())?;
            json::write_string(out, &document);
        }
        Value::Null | Value::Instant(_) | Value::Text(_) | Value::Interval(_) => {
            value.write_json(out, &mut Patches::default())?;
        }
    }
    Ok(())
}

/// Returns the shortest text that gives the same double.
fn text_of_double(double: f64) -> String {
    if double.is_finite() {
        let text = format!("{double:?}");
        text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
    } else if double.is_nan() {
        "NaN".to_owned()
    } else {
        if double > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_integer_is_stored_as_the_very_same_or_rejected(
            integer in prop_oneof![any::<i64>(), (-1_i64 << 55)..1 << 55, -10_i64..10, (1_i64 << 31) - 2..(1 << 31) + 2]
        ) {
            let value = Value::Int(integer);
            for form in [HarperType::Int, HarperType::Long, HarperType::Float] {
                if let Ok(found) = number(form, &value) {
                    prop_assert_eq!(found as i128, i128::from(integer));
                }
            }
            prop_assert_eq!(number(HarperType::Int, &value).is_ok(), i32::try_from(integer).is_ok());
            prop_assert_eq!(number(HarperType::Long, &value).is_ok(), integer.unsigned_abs() <= 1 << 53);
            for form in [HarperType::BigInt, HarperType::String] {
                let mut json = Vec::new();
                write_json(form, &value, &mut json).unwrap();
                let text = String::from_utf8(json).unwrap();
                prop_assert_eq!(text.trim_matches('"'), integer.to_string());
            }
        }

        #[test]
        fn a_date_is_the_millisecond_that_the_instant_lies_in(us in Micros::MIN.0..=Micros::MAX.0) {
            let millis = number(HarperType::Date, &Value::Instant(Micros(us))).unwrap();
            prop_assert!((0..1_000).contains(&(us - millis as i64 * 1_000)));
        }
    }
}
