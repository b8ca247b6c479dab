//! The differences between two versions of a column.

use crate::bigquery::schema::{Field, Type};

/// The difference between two descriptions of one column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Fields that a record has gained, as paths (`position.depth`).
    pub gained: Vec<String>,
    /// Fields that a record has lost, as paths.
    pub lost: Vec<String>,
    /// Whether values of the two types cannot be in one attribute.
    pub retyped: bool,
}

/// Compares two descriptions of a column. Records that gained or lost fields keep their type. If the type of a field
/// changed, the whole column has another type.
pub fn compare(before: &Field, after: &Field) -> Difference {
    let mut difference = Difference::default();
    compare_into(&mut difference, &before.name, before, after);
    difference
}

/// BigQuery's names do not distinguish case.
pub fn same_name(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

fn compare_into(difference: &mut Difference, path: &str, before: &Field, after: &Field) {
    if before.repeated != after.repeated {
        difference.retyped = true;
        return;
    }
    let (Type::Record(before), Type::Record(after)) = (&before.kind, &after.kind) else {
        difference.retyped |= before.kind != after.kind;
        return;
    };
    let find = |fields: &[Field], name: &str| -> Option<usize> {
        fields.iter().position(|field| same_name(&field.name, name))
    };
    for old in before {
        let path = format!("{path}.{}", old.name);
        match find(after, &old.name).and_then(|place| after.get(place)) {
            Some(new) => compare_into(difference, &path, old, new),
            None => difference.lost.push(path),
        }
    }
    let gained = after.iter().filter(|new| find(before, &new.name).is_none());
    difference.gained.extend(gained.map(|new| format!("{path}.{}", new.name)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bigquery::schema::WireField;
    use serde_json::{Value, json};

    fn field(wire: Value) -> Field {
        let wire: WireField = serde_json::from_value(wire).unwrap();
        Field::from_wire(&[wire]).unwrap().remove(0)
    }

    fn record(fields: Value) -> Field {
        field(json!({"name": "r", "type": "RECORD", "fields": fields}))
    }

    #[test]
    fn spellings_and_modes_are_no_difference_but_repetition_is() {
        let one = field(json!({"name": "A", "type": "INTEGER", "mode": "REQUIRED"}));
        let other = field(json!({"name": "a", "type": "INT64"}));
        assert_eq!(compare(&one, &other), Difference::default());
        let many = field(json!({"name": "a", "type": "INT64", "mode": "REPEATED"}));
        assert!(compare(&one, &many).retyped);
    }

    #[test]
    fn fields_within_records_are_compared_at_any_depth() {
        let before = record(json!([
            {"name": "a", "type": "INT64"},
            {"name": "s", "type": "RECORD", "mode": "REPEATED", "fields": [{"name": "b", "type": "DATE"}]}
        ]));
        let after = record(json!([
            {"name": "s", "type": "RECORD", "mode": "REPEATED", "fields": [
                {"name": "b", "type": "DATE"}, {"name": "c", "type": "TIME"}
            ]}
        ]));
        let difference = compare(&before, &after);
        assert_eq!((difference.gained, difference.lost), (vec!["r.s.c".to_owned()], vec!["r.a".to_owned()]));
        assert!(!difference.retyped);
        let retyped = record(json!([{"name": "a", "type": "STRING"}]));
        assert!(compare(&before, &retyped).retyped);
    }
}
