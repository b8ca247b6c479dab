//! The SQL that BigQuery is sent. Names are quoted here and nowhere else; values are typed literals.

use super::cursor::CursorType;
use super::schema::{Field, Type};
use super::table::PartitionUnit;
use crate::config::SourceTable;
use crate::partition::{Division, Rule};
use crate::time::{self, DAY_US, Micros, instant};
use serde::{Deserialize, Serialize};

/// The cursor range of one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Rows at or before this instant are left out.
    #[serde(with = "instant", default)]
    pub after: Option<Micros>,
    /// Rows after this instant are left out.
    #[serde(with = "instant", default)]
    pub until: Option<Micros>,
}

impl Window {
    /// All rows.
    pub const ALL: Window = Window { after: None, until: None };

    /// Returns the smallest window that has the rows of both.
    pub fn around(self, other: Window) -> Window {
        let until = self.until.zip(other.until).map(|(one, other)| one.max(other));
        Window { after: self.after.min(other.after), until }
    }
}

/// A range of the cursor, half-open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its first instant; none when it starts at the beginning.
    pub from: Option<Micros>,
    /// The instant after its last one; none when it reaches to the end.
    pub to: Option<Micros>,
    /// Whether it may also have rows of other partitions.
    pub is_mixed: bool,
}

/// A selection of a table's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All of them.
    All,
    /// Those of some partitions.
    Partitions(Rule, Vec<u32>),
    /// Those of some partitions, with the cursor ranges in which they lie.
    Segments(Rule, Vec<u32>, Vec<Segment>),
}

/// The column that numbers identical rows, where the query does it.
pub const OCCURRENCE: &str = "_bigquery_sync_occurrence";

/// The column with the newest cursor of a key.
const NEWEST: &str = "_bigquery_sync_newest";

/// The columns of a table that are read.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'s> {
    /// In the order of the result's cells.
    pub fields: &'s [Field],
    /// The name of the cursor column.
    pub cursor: &'s str,
    /// The cursor column's type.
    pub cursor_type: CursorType,
    /// Whether all columns are read, including those that were added after the table was described.
    pub reads_all: bool,
}

/// A query of a source table.
#[derive(Debug, Clone, Copy)]
pub struct Source<'s> {
    /// The table.
    pub table: &'s SourceTable,
    /// The columns.
    pub columns: Columns<'s>,
    /// The configured condition.
    pub filter: Option<&'s str>,
    /// The rows of the table that are meant.
    pub selection: &'s Selection,
}

/// Returns the query that reads all rows of a window.
///
/// It has neither LIMIT nor ORDER BY: those bill as much as reading everything, and split rows that share a
/// cursor value. Bounds are literals, so that BigQuery can leave out partitions. With `numbered`, BigQuery itself
/// counts identical rows, in the column [`OCCURRENCE`].
pub fn read_window(source: Source<'_>, window: Window, numbered: bool) -> String {
    let columns = source.columns;
    let mut selected = selected_columns(columns);
    if numbered {
        let names: Vec<String> = columns.fields.iter().map(|field| quote(&field.name)).collect();
        let (cursor, row) = (quote(columns.cursor), names.join(", "));
        selected.push(format!(
            "ROW_NUMBER() OVER (PARTITION BY {cursor}, TO_JSON_STRING(STRUCT({row}))) - 1 AS {}",
            quote(OCCURRENCE)
        ));
    }
    let mut conditions = bounds(columns, window);
    if conditions.is_empty() {
        // Rows without a cursor are never read, whatever the bounds.
        conditions.push(format!("{} IS NOT NULL", quote(columns.cursor)));
    }
    conditions.extend(selection_condition(columns, source.selection));
    conditions.extend(filter_condition(source.filter));
    format!(
        "SELECT {}\nFROM {}\nWHERE {}",
        selected.join(", "),
        table_name(source.table),
        conditions.join("\n  AND ")
    )
}

fn selected_columns(columns: Columns<'_>) -> Vec<String> {
    let is_converted = |field: &&Field| matches!(field.kind, Type::Geography) && !field.repeated;
    let select = |field: &Field| {
        let name = quote(&field.name);
        if is_converted(&field) { format!("ST_ASGEOJSON({name}) AS {name}") } else { name }
    };
    if !columns.reads_all {
        return columns.fields.iter().map(select).collect();
    }
    let converted: Vec<String> = columns.fields.iter().filter(is_converted).map(select).collect();
    if converted.is_empty() {
        return vec!["*".to_owned()];
    }
    vec![format!("* REPLACE ({})", converted.join(", "))]
}

/// Returns the query that counts the rows of each partition of a table after `after`, in their order.
pub fn count_by_partition(source: Source<'_>, after: Option<Micros>, unit: PartitionUnit) -> String {
    let cursor = quote(source.columns.cursor);
    let part = match unit {
        PartitionUnit::Hour => "HOUR",
        PartitionUnit::Day => "DAY",
        PartitionUnit::Month => "MONTH",
        PartitionUnit::Year => "YEAR",
    };
    let start = match source.columns.cursor_type {
        CursorType::DateTime => format!("TIMESTAMP(DATETIME_TRUNC({cursor}, {part}))"),
        CursorType::Date => format!("TIMESTAMP(DATE_TRUNC({cursor}, {part}))"),
        CursorType::Timestamp => format!("TIMESTAMP_TRUNC({cursor}, {part})"),
        CursorType::Integer(_) => {
            format!("TIMESTAMP_TRUNC(TIMESTAMP_MICROS({}), {part})", cursor_micros(source.columns))
        }
    };
    let mut conditions = vec![format!("{cursor} IS NOT NULL")];
    conditions.extend(bounds(source.columns, Window { after, until: None }));
    conditions.extend(filter_condition(source.filter));
    format!(
        "SELECT UNIX_MICROS({start}) AS starts, COUNT(*) AS row_count\nFROM {}\nWHERE {}\nGROUP BY starts\nORDER BY starts",
        table_name(source.table),
        conditions.join("\n  AND ")
    )
}

/// Returns the query that counts and digests the cursors of a window, by spans of `length_us` that are numbered from the
/// epoch: number, rows, and for each word of the hash the sum modulo 2³². A word is eight of the hexadecimal digits of the
/// SHA-256 of the cursor in microseconds, from the digit with its number on.
pub fn digest_by_span(source: Source<'_>, window: Window, length_us: i64, words: [u32; 2]) -> String {
    let micros = cursor_micros(source.columns);
    let number = span_number(&micros, length_us);
    let sums = words.map(|word| {
        let digits = format!("SUBSTR(TO_HEX(SHA256(CAST({micros} AS STRING))), {word}, 8)");
        format!("MOD(SUM(CAST(CONCAT('0x', {digits}) AS INT64)), 4294967296) AS word_{word}")
    });
    let mut conditions = vec![format!("{} IS NOT NULL", quote(source.columns.cursor))];
    conditions.extend(bounds(source.columns, window));
    conditions.extend(selection_condition(source.columns, source.selection));
    conditions.extend(filter_condition(source.filter));
    format!(
        "SELECT {number} AS span, COUNT(*) AS row_count, {}\nFROM {}\nWHERE {}\nGROUP BY span\nORDER BY span",
        sums.join(", "),
        table_name(source.table),
        conditions.join("\n  AND ")
    )
}

/// Returns the query that lists all keys, each with the newest cursor of its rows in microseconds.
pub fn newest_of_keys(source: Source<'_>, after: Option<Micros>, key: &[String]) -> String {
    let key: Vec<String> = key.iter().map(|name| quote(name)).collect();
    let key = key.join(", ");
    let mut conditions = vec![format!("{} IS NOT NULL", quote(source.columns.cursor))];
    conditions.extend(bounds(source.columns, Window { after, until: None }));
    conditions.extend(selection_condition(source.columns, source.selection));
    conditions.extend(filter_condition(source.filter));
    format!(
        "SELECT {key}, MAX({}) AS {}\nFROM {}\nWHERE {}\nGROUP BY {key}",
        cursor_micros(source.columns),
        quote(NEWEST),
        table_name(source.table),
        conditions.join("\n  AND ")
    )
}

/// Returns the query that counts the rows without a cursor. No window contains them.
pub fn count_without_cursor(source: Source<'_>) -> String {
    let mut conditions = vec![format!("{} IS NULL", quote(source.columns.cursor))];
    conditions.extend(filter_condition(source.filter));
    format!(
        "SELECT COUNT(*) AS row_count\nFROM {}\nWHERE {}",
        table_name(source.table),
        conditions.join("\n  AND ")
    )
}

fn bounds(columns: Columns<'_>, window: Window) -> Vec<String> {
    let cursor = quote(columns.cursor);
    let literal = |instant| literal(columns.cursor_type, instant);
    let after = window.after.map(|after| format!("{cursor} > {}", literal(after)));
    let until = window.until.map(|until| format!("{cursor} <= {}", literal(until)));
    after.into_iter().chain(until).collect()
}

fn selection_condition(columns: Columns<'_>, selection: &Selection) -> Option<String> {
    match selection {
        Selection::All => None,
        Selection::Partitions(rule, partitions) => Some(partition_condition(columns, *rule, partitions)),
        Selection::Segments(rule, partitions, segments) => {
            let ranges: Vec<String> = segments
                .iter()
                .map(|segment| {
                    let mut terms = range(columns, segment);
                    if segment.is_mixed || terms.is_empty() {
                        terms.push(partition_condition(columns, *rule, partitions));
                    }
                    format!("({})", terms.join(" AND "))
                })
                .collect();
            Some(format!("({})", ranges.join("\n    OR ")))
        }
    }
}

fn range(columns: Columns<'_>, segment: &Segment) -> Vec<String> {
    let cursor = quote(columns.cursor);
    let bound = |operator: &str, instant: Micros| {
        format!("{cursor} {operator} {}", literal(columns.cursor_type, instant))
    };
    // BigQuery has no instants beyond these, so there is nothing to bound, and no literal for it.
    let from = segment.from.filter(|from| *from > Micros::MIN).map(|from| bound(">", from.plus(-1)));
    let to = segment.to.filter(|to| *to <= Micros::MAX).map(|to| bound("<=", to.plus(-1)));
    from.into_iter().chain(to).collect()
}

/// Returns the condition that a row is in one of some partitions, exactly as [`Rule::partition`] decides it.
fn partition_condition(columns: Columns<'_>, rule: Rule, partitions: &[u32]) -> String {
    let micros = cursor_micros(columns);
    let count = rule.partitions.max(1);
    let number = match rule.division {
        Division::Whole => "0".to_owned(),
        Division::Value => {
            format!("MOD(FARM_FINGERPRINT(CAST({micros} AS STRING)) & 0x7FFFFFFFFFFFFFFF, {count})")
        }
        Division::Spans(span) => {
            let span_number = match span.length_us() {
                Some(length_us) => span_number(&micros, length_us),
                None => {
                    let instant = format!("TIMESTAMP_MICROS({micros})");
                    format!("EXTRACT(YEAR FROM {instant}) * 12 + EXTRACT(MONTH FROM {instant}) - 1")
                }
            };
            format!("MOD(MOD({span_number}, {count}) + {count}, {count})")
        }
    };
    let wanted: Vec<String> = partitions.iter().map(u32::to_string).collect();
    format!("{number} IN ({})", wanted.join(", "))
}

/// Returns the number of the span that an instant lies in, counted from the epoch.
fn span_number(micros: &str, length_us: i64) -> String {
    // DIV and MOD round towards zero. The parentheses are for emulators that translate DIV to an operator without
    // enclosing a difference on its left.
    format!("DIV(({micros} - MOD(MOD({micros}, {length_us}) + {length_us}, {length_us})), {length_us})")
}

/// Returns the cursor in microseconds since the epoch.
fn cursor_micros(columns: Columns<'_>) -> String {
    let cursor = quote(columns.cursor);
    match columns.cursor_type {
        CursorType::Timestamp => format!("UNIX_MICROS({cursor})"),
        CursorType::DateTime => format!("UNIX_MICROS(TIMESTAMP({cursor}))"),
        CursorType::Date => format!("UNIX_DATE({cursor}) * {DAY_US}"),
        CursorType::Integer(unit) => format!("{cursor} * {}", unit.us()),
    }
}

fn filter_condition(filter: Option<&str>) -> Option<String> {
    // The line break ends a comment that the filter may end with.
    filter.map(|filter| format!("({filter}\n)"))
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
        CursorType::Integer(unit) => {
            text.extend_from_slice(instant.0.div_euclid(unit.us()).to_string().as_bytes());
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CursorUnit;

    const NAME: &str = "odd `name\\";

    fn table() -> SourceTable {
        let name = |name: &str| name.to_owned();
        SourceTable { project_id: name("my-project"), dataset: name("d"), table: name("t") }
    }

    fn fields() -> [Field; 3] {
        let field =
            |name: &str, kind| Field { name: name.to_owned(), kind, repeated: false, required: false };
        [field("ts", Type::Timestamp), field("place", Type::Geography), field(NAME, Type::Int64)]
    }

    fn columns(fields: &[Field], cursor_type: CursorType) -> Columns<'_> {
        Columns { fields, cursor: "ts", cursor_type, reads_all: true }
    }

    fn sql(cursor_type: CursorType, filter: Option<&str>, window: Window, numbered: bool) -> String {
        let (table, fields) = (table(), fields());
        let columns = columns(&fields, cursor_type);
        read_window(Source { table: &table, columns, filter, selection: &Selection::All }, window, numbered)
    }

    const BOTH: Window = Window { after: Some(Micros(-1)), until: Some(Micros(1_704_067_200_000_000)) };

    #[test]
    fn a_window_is_read_whole_with_literal_bounds() {
        insta::assert_snapshot!(sql(CursorType::Timestamp, Some("x > 1 -- why"), BOTH, false), @r"
        SELECT * REPLACE (ST_ASGEOJSON(`place`) AS `place`)
        FROM `my-project`.`d`.`t`
        WHERE `ts` > TIMESTAMP '1969-12-31 23:59:59.999999+00'
          AND `ts` <= TIMESTAMP '2024-01-01 00:00:00.000000+00'
          AND (x > 1 -- why
        )
        ");
    }

    #[test]
    fn columns_are_listed_where_not_all_of_a_table_are_read() {
        let (table, fields, selection) = (table(), fields(), Selection::All);
        let columns = Columns { reads_all: false, ..columns(&fields, CursorType::Timestamp) };
        let source = Source { table: &table, columns, filter: None, selection: &selection };
        insta::assert_snapshot!(read_window(source, Window { after: None, until: None }, false), @r"
        SELECT `ts`, ST_ASGEOJSON(`place`) AS `place`, `odd \`name\\`
        FROM `my-project`.`d`.`t`
        WHERE `ts` IS NOT NULL
        ");
    }

    #[test]
    fn identical_rows_can_be_numbered_by_bigquery() {
        let whole = Window { after: None, until: None };
        insta::assert_snapshot!(sql(CursorType::Timestamp, None, whole, true), @r"
        SELECT * REPLACE (ST_ASGEOJSON(`place`) AS `place`), ROW_NUMBER() OVER (PARTITION BY `ts`, TO_JSON_STRING(STRUCT(`ts`, `place`, `odd \`name\\`))) - 1 AS `_bigquery_sync_occurrence`
        FROM `my-project`.`d`.`t`
        WHERE `ts` IS NOT NULL
        ");
    }

    #[test]
    fn partitions_are_counted_by_reading_the_cursor_alone() {
        let (table, fields, selection) = (table(), fields(), Selection::All);
        let columns = columns(&fields, CursorType::Date);
        let source = Source { table: &table, columns, filter: Some("a"), selection: &selection };
        insta::assert_snapshot!(count_by_partition(source, BOTH.after, PartitionUnit::Month), @r"
        SELECT UNIX_MICROS(TIMESTAMP(DATE_TRUNC(`ts`, MONTH))) AS starts, COUNT(*) AS row_count
        FROM `my-project`.`d`.`t`
        WHERE `ts` IS NOT NULL
          AND `ts` > DATE '1969-12-31'
          AND (a
        )
        GROUP BY starts
        ORDER BY starts
        ");
    }

    #[test]
    fn a_cursor_that_counts_seconds_is_counted_by_the_days_that_it_stands_for() {
        let (table, fields, selection) = (table(), fields(), Selection::All);
        let columns = columns(&fields, CursorType::Integer(CursorUnit::Seconds));
        let source = Source { table: &table, columns, filter: None, selection: &selection };
        let sql = count_by_partition(source, None, PartitionUnit::Day);
        let start = "UNIX_MICROS(TIMESTAMP_TRUNC(TIMESTAMP_MICROS(`ts` * 1000000), DAY)) AS starts";
        assert!(sql.contains(start), "{sql}");
    }

    #[test]
    fn cursors_are_digested_by_spans_without_reading_another_column() {
        let (table, fields, selection) = (table(), fields(), Selection::All);
        let columns = columns(&fields, CursorType::Timestamp);
        let source = Source { table: &table, columns, filter: Some("a"), selection: &selection };
        let sql = digest_by_span(source, BOTH, 60_000_000, [1, 9]);
        insta::assert_snapshot!(sql.replace(", ", ",\n  "), @r"
        SELECT DIV((UNIX_MICROS(`ts`) - MOD(MOD(UNIX_MICROS(`ts`),
          60000000) + 60000000,
          60000000)),
          60000000) AS span,
          COUNT(*) AS row_count,
          MOD(SUM(CAST(CONCAT('0x',
          SUBSTR(TO_HEX(SHA256(CAST(UNIX_MICROS(`ts`) AS STRING))),
          1,
          8)) AS INT64)),
          4294967296) AS word_1,
          MOD(SUM(CAST(CONCAT('0x',
          SUBSTR(TO_HEX(SHA256(CAST(UNIX_MICROS(`ts`) AS STRING))),
          9,
          8)) AS INT64)),
          4294967296) AS word_9
        FROM `my-project`.`d`.`t`
        WHERE `ts` IS NOT NULL
          AND `ts` > TIMESTAMP '1969-12-31 23:59:59.999999+00'
          AND `ts` <= TIMESTAMP '2024-01-01 00:00:00.000000+00'
          AND (a
        )
        GROUP BY span
        ORDER BY span
        ");
    }

    #[test]
    fn bounds_have_the_type_of_the_cursor_column() {
        let until = Window { after: None, ..BOTH };
        assert!(
            sql(CursorType::DateTime, None, until, false)
                .ends_with("WHERE `ts` <= DATETIME '2024-01-01 00:00:00.000000'")
        );
        assert!(
            sql(CursorType::Date, None, BOTH, false)
                .ends_with("WHERE `ts` > DATE '1969-12-31'\n  AND `ts` <= DATE '2024-01-01'")
        );
        assert!(
            sql(CursorType::Integer(CursorUnit::Milliseconds), None, BOTH, false)
                .ends_with("WHERE `ts` > -1\n  AND `ts` <= 1704067200000")
        );
    }
}
