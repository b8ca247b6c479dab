//! The SQL that BigQuery is sent. Names are quoted here and nowhere else; values are typed literals.

use super::projection::{CursorType, Projection};
use super::schema::Type;
use crate::config::SourceTable;
use crate::time::{self, DAY_US, Micros};

/// The cursor range of one query: after `after` (from the beginning when absent), up to and with `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Rows at or before this instant are left out.
    pub after: Option<Micros>,
    /// Rows after this instant are left out.
    pub until: Micros,
}

/// Returns the query that reads all rows of a window.
///
/// It has neither LIMIT nor ORDER BY: those bill as much as reading everything, and split rows that share a
/// cursor value. Bounds are literals, so that BigQuery can leave out partitions.
pub fn read_window(
    source: &SourceTable,
    projection: &Projection,
    filter: Option<&str>,
    window: Window,
) -> String {
    let columns: Vec<String> = projection
        .fields
        .iter()
        .map(|field| {
            let name = quote(&field.name);
            match field.kind {
                Type::Geography if !field.repeated => format!("ST_ASGEOJSON({name}) AS {name}"),
                _ => name,
            }
        })
        .collect();
    let cursor = quote(projection.cursor_name());
    let literal = |instant| literal(projection.cursor_type, instant);
    let mut conditions = Vec::new();
    conditions.extend(window.after.map(|after| format!("{cursor} > {}", literal(after))));
    conditions.push(format!("{cursor} <= {}", literal(window.until)));
    // The line break ends a comment that the filter may end with.
    conditions.extend(filter.map(|filter| format!("({filter}\n)")));
    format!(
        "SELECT {}\nFROM {}\nWHERE {}",
        columns.join(", "),
        table_name(source),
        conditions.join("\n  AND ")
    )
}

/// Returns the quoted name of a table.
pub fn table_name(source: &SourceTable) -> String {
    format!("{}.{}.{}", quote(&source.project_id), quote(&source.dataset), quote(&source.table))
}

/// Quotes an identifier.
pub fn quote(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('`');
    for character in name.chars() {
        match character {
            '`' | '\\' => {
                quoted.push('\\');
                quoted.push(character);
            }
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            _ => quoted.push(character),
        }
    }
    quoted.push('`');
    quoted
}

fn literal(cursor_type: CursorType, instant: Micros) -> String {
    let mut text = Vec::with_capacity(48);
    match cursor_type {
        CursorType::Timestamp => {
            text.extend_from_slice(b"TIMESTAMP '");
            instant.write_civil(&mut text, b' ');
            text.extend_from_slice(b"+00'");
        }
        CursorType::DateTime => {
            text.extend_from_slice(b"DATETIME '");
            instant.write_civil(&mut text, b' ');
            text.push(b'\'');
        }
        CursorType::Date => {
            text.extend_from_slice(b"DATE '");
            time::write_date(&mut text, instant.0.div_euclid(DAY_US));
            text.push(b'\'');
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bigquery::schema::Field;
    use crate::config::{Config, Environment};

    fn projection(cursor: Type) -> (SourceTable, Projection) {
        let root = serde_json::json!({"bigquery": {
            "projectId": "my-project", "dataset": "d", "table": "t", "timestampColumn": "ts"
        }});
        let config = Config::parse(&root, &Environment::default()).unwrap().tables.remove(0);
        let field = |name: &str, kind| Field { name: name.to_owned(), kind, repeated: false };
        let fields =
            [field("ts", cursor), field("place", Type::Geography), field("odd `name\\", Type::Int64)];
        (config.source.clone(), Projection::resolve(&config, &fields).unwrap())
    }

    const WINDOW: Window = Window { after: Some(Micros(-1)), until: Micros(1_704_067_200_000_000) };

    #[test]
    fn a_window_is_read_whole_with_literal_bounds() {
        let (source, projection) = projection(Type::Timestamp);
        insta::assert_snapshot!(read_window(&source, &projection, Some("x > 1 -- why"), WINDOW), @r"
        SELECT `ts`, ST_ASGEOJSON(`place`) AS `place`, `odd \`name\\`
        FROM `my-project`.`d`.`t`
        WHERE `ts` > TIMESTAMP '1969-12-31 23:59:59.999999+00'
          AND `ts` <= TIMESTAMP '2024-01-01 00:00:00.000000+00'
          AND (x > 1 -- why
        )
        ");
    }

    #[test]
    fn bounds_have_the_type_of_the_cursor_column() {
        let whole = Window { after: None, ..WINDOW };
        let (source, datetime) = projection(Type::DateTime);
        assert!(
            read_window(&source, &datetime, None, whole)
                .ends_with("WHERE `ts` <= DATETIME '2024-01-01 00:00:00.000000'")
        );
        let (source, date) = projection(Type::Date);
        assert!(
            read_window(&source, &date, None, WINDOW)
                .ends_with("WHERE `ts` > DATE '1969-12-31'\n  AND `ts` <= DATE '2024-01-01'")
        );
    }
}
