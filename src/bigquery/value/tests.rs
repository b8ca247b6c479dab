use super::*;
use proptest::prelude::*;

fn field(kind: Type) -> Field {
    Field { name: "c".to_owned(), kind, repeated: false, required: false }
}

fn text(raw: &str) -> Cell<'_> {
    Cell::Text(Text { raw: raw.as_bytes(), escaped: raw.contains('\\') })
}

fn to_json(cell: Cell<'_>, field: &Field) -> Result<String, Unreadable> {
    let mut out = Vec::new();
    Value::parse(cell, field)?.write_json(&mut out, &mut Patches::default())?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn every_type_has_its_form_in_harper() {
    for (kind, given, expected) in [
        (Type::Int64, "-42", "-42"),
        (Type::Float64, "1e300", "1e300"),
        (Type::Float64, "-0.0", "-0.0"),
        (Type::Numeric, "12.500", "12.5"),
        (Type::Numeric, "0.000000001", "0.000000001"),
        (Type::Numeric, "12345678901234567890.123456789", "\"12345678901234567890.123456789\""),
        (Type::BigNumeric, "-0.00", "0"),
        (Type::Bool, "true", "true"),
        (Type::String, r#"a\"b\u00e9"#, r#""a\"b\u00e9""#),
        (Type::Bytes, "AAE=", "\"AAE=\""),
        (Type::Timestamp, "1704067200500000", "\"2024-01-01T00:00:00.500000Z\""),
        (Type::Timestamp, "-62135596800000000", "\"0001-01-01T00:00:00.000000Z\""),
        (Type::Date, "9999-12-31", "\"9999-12-31\""),
        (Type::Time, "23:59:59.999999", "\"23:59:59.999999\""),
        (Type::DateTime, "2024-01-01T00:00:00.5", "\"2024-01-01T00:00:00.5\""),
        (Type::Interval, "1-2 3 -4:5:6.5", "\"P1Y2M3DT-4H-5M-6.5S\""),
        (Type::Interval, "0-0 0 0:0:0", "\"PT0S\""),
        (Type::Interval, "-1-2 -3 0:0:0.000001", "\"P-1Y-2M-3DT0.000001S\""),
        (Type::Json, r#"{\"a\": [1, \"x\\n\"]}"#, r#"{"a":[1,"x\n"]}"#),
        (
            Type::Range(Box::new(Type::Date)),
            "[2024-01-01, UNBOUNDED)",
            r#"{"start":"2024-01-01","end":null}"#,
        ),
        (Type::Unknown("SKETCH".to_owned()), "xyz", "\"xyz\""),
    ] {
        assert_eq!(to_json(text(given), &field(kind)).as_deref(), Ok(expected), "{given}");
    }
}

#[test]
fn values_of_the_wrong_form_name_column_and_type_only() {
    for kind in
        [Type::Int64, Type::Float64, Type::Numeric, Type::Bool, Type::Timestamp, Type::Date, Type::Json]
    {
        let expected = kind.name().to_owned();
        let failure = to_json(text("secret"), &field(kind)).unwrap_err();
        assert_eq!(failure.expected, expected);
        assert!(!format!("{failure:?}").contains("secret"));
    }
    assert!(to_json(text("253402300800000000"), &field(Type::Timestamp)).is_err());
}

#[test]
fn what_json_cannot_carry_becomes_a_patch_with_its_path() {
    let inner = Field { name: "n".to_owned(), kind: Type::Int64, repeated: true, required: false };
    let record = field(Type::Record(vec![
        inner,
        Field { name: "f".to_owned(), kind: Type::Float64, repeated: false, required: false },
    ]));
    let cell = Cell::Nested(br#"{"f":[{"v":[{"v":"1"},{"v":"9007199254740993"}]},{"v":"NaN"}]}"#);
    let mut out = Vec::new();
    let mut patches = Patches::default();
    patches.locate(3, 7);
    Value::parse(cell, &record).unwrap().write_json(&mut out, &mut patches).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), r#"{"n":[1,null],"f":null}"#);
    let found = serde_json::to_string(&patches.into_found()).unwrap();
    assert_eq!(
        found,
        r#"[{"column":3,"row":7,"path":["n",1],"value":{"bigint":"9007199254740993"}},{"column":3,"row":7,"path":["f"],"value":{"float":"NaN"}}]"#
    );
}

#[test]
fn integers_in_json_documents_stay_exact() {
    let json = field(Type::Json);
    let mut patches = Patches::default();
    let mut out = Vec::new();
    let cell = text(r#"{\"a\":[9007199254740993,9007199254740992]}"#);
    Value::parse(cell, &json).unwrap().write_json(&mut out, &mut patches).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), r#"{"a":[null,9007199254740992]}"#);
    assert_eq!(patches.into_found().len(), 1);
}

fn canonical(cell: Cell<'_>, field: &Field) -> Vec<u8> {
    let mut out = Vec::new();
    Value::parse(cell, field).unwrap().write_canonical(&mut out).unwrap();
    out
}

#[test]
fn equal_values_have_one_canonical_form() {
    for (kind, one, other) in [
        (Type::Float64, "1", "1.0"),
        (Type::Float64, "100", "1e2"),
        (Type::Numeric, "1.50", "1.5"),
        (Type::String, "\\u00e9\\/", "é/"),
    ] {
        let field = field(kind);
        assert_eq!(canonical(text(one), &field), canonical(text(other), &field), "{one}");
    }
}

#[test]
fn an_added_null_field_does_not_change_a_records_canonical_form() {
    let int =
        |name: &str| Field { name: name.to_owned(), kind: Type::Int64, repeated: false, required: false };
    let before = field(Type::Record(vec![int("b")]));
    let after = field(Type::Record(vec![int("a"), int("b")]));
    assert_eq!(
        canonical(Cell::Nested(br#"{"f":[{"v":"1"}]}"#), &before),
        canonical(Cell::Nested(br#"{"f":[{"v":null},{"v":"1"}]}"#), &after)
    );
}

#[test]
fn long_values_have_their_length_in_front_too() {
    let encode = |first: &str, second: &str| {
        let string = field(Type::String);
        let mut out = Vec::new();
        for part in [first, second] {
            write_canonical_field(&mut out, name_tag("c"), &Value::parse(text(part), &string).unwrap())
                .unwrap();
        }
        out
    };
    for length in [254, 255, 256, 70_000] {
        let (long, short) = ("x".repeat(length), "y");
        assert_ne!(encode(&long, short), encode(&"x".repeat(length - 1), "xy"), "{length}");
        assert_eq!(encode(&long, short).len(), length + 1 + 2 * 4 + 2 + if length > 254 { 4 } else { 0 });
    }
}

proptest! {
    #[test]
    fn any_integer_comes_back_the_same(value in any::<i64>()) {
        prop_assert_eq!(parse_integer(&value.to_string()), Some(value));
    }

    #[test]
    fn what_is_no_integer_is_refused(text in "[-+ 0-9a]{0,22}") {
        let plus_free = !text.starts_with('+');
        prop_assert_eq!(parse_integer(&text), text.parse().ok().filter(|_| plus_free || text.len() > 19));
    }

    #[test]
    fn a_decimal_is_a_number_only_if_it_comes_back_the_same(
        whole in 0_u64..u64::MAX, fraction in 0_u32..1_000_000_000, negative in any::<bool>()
    ) {
        let sign = if negative { "-" } else { "" };
        let given = format!("{sign}{whole}.{fraction:09}");
        let json = to_json(text(&given), &field(Type::Numeric)).unwrap();
        let exact = normal_decimal(&given).unwrap();
        if let Some(number) = serde_json::from_str::<serde_json::Value>(&json).unwrap().as_f64() {
            prop_assert_eq!(number.to_string(), exact);
        } else {
            prop_assert_eq!(json, format!("\"{exact}\""));
        }
    }

    #[test]
    fn any_double_comes_back_the_same(value in any::<f64>()) {
        let given = format!("{value:?}");
        let json = to_json(text(&given), &field(Type::Float64)).unwrap();
        if value.is_finite() {
            prop_assert_eq!(json.parse::<f64>().unwrap().to_bits(), value.to_bits());
        } else {
            prop_assert_eq!(json, "null");
        }
    }
}
