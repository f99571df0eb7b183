//! The schema as a tree that puts the columns of a row together to one JSON value.

use parquet::basic::{ConvertedType, LogicalType, Repetition};
use parquet::schema::types::Type;
use serde_json::{Map, Value};

use super::column::Column;

/// A field of the schema, with the columns below it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    /// The definition level from which on the field is there, where it may be missing.
    optional: Option<i16>,
    shape: Shape,
    /// The columns below, by their number in the file.
    columns: std::ops::Range<usize>,
}

#[derive(Debug)]
enum Shape {
    Leaf,
    Group(Vec<Node>),
    List(Repeated, Box<Node>),
    /// Keys and values; a map without values is a list of its keys.
    Map(Repeated, Box<Node>, Box<Node>),
}

/// The levels at which a repeated field has one more entry.
#[derive(Debug, Clone, Copy)]
struct Repeated {
    rep: i16,
    def: i16,
}

/// What is wrong with a value, and in which field.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) field: String,
    pub(super) reason: String,
}

impl Node {
    /// The top-level fields of `schema`.
    pub(super) fn roots(schema: &Type) -> Result<Vec<Self>, String> {
        let mut columns = 0;
        let levels = Repeated { rep: 0, def: 0 };
        schema.get_fields().iter().map(|field| Self::new(field, levels, &mut columns)).collect()
    }

    pub(super) fn columns(&self) -> std::ops::Range<usize> {
        self.columns.clone()
    }

    /// A value that shows the names of the fields: objects for structs, else null.
    pub(super) fn sample(&self) -> Value {
        match &self.shape {
            Shape::Group(fields) => {
                fields.iter().map(|field| (field.name.clone(), field.sample())).collect()
            }
            _ => Value::Null,
        }
    }

    /// The field's value in the current row of `columns`, which are in the order of the file.
    pub(super) fn assemble(&self, columns: &mut [Option<Column>]) -> Result<Value, Fault> {
        if let Some(there) = self.optional
            && self.def(columns)? < there
        {
            self.skip(columns);
            return Ok(Value::Null);
        }
        match &self.shape {
            Shape::Leaf => {
                let column = columns.get_mut(self.columns.start).and_then(Option::as_mut);
                column
                    .ok_or_else(|| self.fault("the column is missing"))?
                    .take()
                    .map_err(|reason| self.fault(reason))
            }
            Shape::Group(fields) => {
                let mut object = Map::with_capacity(fields.len());
                for field in fields {
                    let value = field.assemble(columns).map_err(|fault| self.above(fault))?;
                    object.insert(field.name.clone(), value);
                }
                Ok(Value::Object(object))
            }
            Shape::List(levels, element) => {
                let mut items = Vec::new();
                self.each(*levels, columns, |columns| {
                    items.push(element.assemble(columns).map_err(|mut fault| {
                        fault.field.clone_from(&self.name);
                        fault
                    })?);
                    Ok(())
                })?;
                Ok(Value::Array(items))
            }
            Shape::Map(levels, key, value) => {
                let mut object = Map::new();
                self.each(*levels, columns, |columns| {
                    let key = key.assemble(columns).map_err(|fault| self.above(fault))?;
                    let key = match key {
                        Value::String(key) => key,
                        Value::Number(key) => key.to_string(),
                        _ => return Err(self.fault("the keys of a map must be strings")),
                    };
                    let value = value.assemble(columns).map_err(|fault| self.above(fault))?;
                    if object.insert(key, value).is_some() {
                        return Err(self.fault("a key of the map appears twice"));
                    }
                    Ok(())
                })?;
                Ok(Value::Object(object))
            }
        }
    }

    /// Calls `entry` for each entry of a repeated field.
    fn each(
        &self,
        levels: Repeated,
        columns: &mut [Option<Column>],
        mut entry: impl FnMut(&mut [Option<Column>]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if self.def(columns)? < levels.def {
            self.skip(columns);
            return Ok(());
        }
        loop {
            entry(columns)?;
            let next = columns.get(self.columns.start).and_then(Option::as_ref);
            let next = next.and_then(Column::levels);
            if next.is_none_or(|next| next.rep != levels.rep) {
                return Ok(());
            }
        }
    }

    /// The definition level of the next value, by the first column below.
    fn def(&self, columns: &[Option<Column>]) -> Result<i16, Fault> {
        let column = columns.get(self.columns.start).and_then(Option::as_ref);
        let levels = column.and_then(Column::levels);
        levels.map(|levels| levels.def).ok_or_else(|| self.fault("a value is missing in the file"))
    }

    fn skip(&self, columns: &mut [Option<Column>]) {
        for column in columns[self.columns()].iter_mut().flatten() {
            column.skip();
        }
    }

    fn fault(&self, reason: impl Into<String>) -> Fault {
        Fault { field: self.name.clone(), reason: reason.into() }
    }

    fn above(&self, fault: Fault) -> Fault {
        Fault { field: format!("{}.{}", self.name, fault.field), ..fault }
    }

    fn new(field: &Type, above: Repeated, columns: &mut usize) -> Result<Self, String> {
        let Repeated { rep, def } = above;
        let repetition = match field.get_basic_info().has_repetition() {
            true => field.get_basic_info().repetition(),
            false => Repetition::REQUIRED,
        };
        match repetition {
            Repetition::REQUIRED => Self::present(field, above, columns),
            Repetition::OPTIONAL => {
                let node = Self::present(field, Repeated { rep, def: def + 1 }, columns)?;
                Ok(Self { optional: Some(def + 1), ..node })
            }
            Repetition::REPEATED => {
                let levels = Repeated { rep: rep + 1, def: def + 1 };
                let element = Self::present(field, levels, columns)?;
                Ok(Self {
                    name: element.name.clone(),
                    optional: None,
                    columns: element.columns(),
                    shape: Shape::List(levels, Box::new(element)),
                })
            }
        }
    }

    /// The field where it is neither missing nor repeated.
    fn present(field: &Type, levels: Repeated, columns: &mut usize) -> Result<Self, String> {
        let start = *columns;
        let shape = match field {
            Type::PrimitiveType { .. } => {
                *columns += 1;
                Shape::Leaf
            }
            Type::GroupType { fields, .. } => {
                let inner = Repeated { rep: levels.rep + 1, def: levels.def + 1 };
                let repeated = match fields.as_slice() {
                    [only] if is_repeated(only) => Some(only),
                    _ => None,
                };
                match (annotation(field), repeated) {
                    (Some(Annotation::List), Some(entry)) => {
                        let element = match entry.as_ref() {
                            Type::GroupType { fields, .. } if wraps_element(field, entry) => {
                                Self::new(&fields[0], inner, columns)?
                            }
                            _ => Self::present(entry, inner, columns)?,
                        };
                        Shape::List(inner, Box::new(element))
                    }
                    (Some(Annotation::Map), Some(entry)) if entry.is_group() => {
                        match entry.get_fields() {
                            [key] => Shape::List(inner, Box::new(Self::new(key, inner, columns)?)),
                            [key, value] => {
                                let key = Box::new(Self::new(key, inner, columns)?);
                                let value = Box::new(Self::new(value, inner, columns)?);
                                Shape::Map(inner, key, value)
                            }
                            _ => return Err(format!("the map '{}' is malformed", field.name())),
                        }
                    }
                    _ => Shape::Group(
                        fields
                            .iter()
                            .map(|field| Self::new(field, levels, columns))
                            .collect::<Result<_, _>>()?,
                    ),
                }
            }
        };
        if *columns == start {
            return Err(format!(
                "the group '{}' has no columns",
                super::super::shown(field.name())
            ));
        }
        Ok(Self { name: field.name().to_string(), optional: None, shape, columns: start..*columns })
    }
}

enum Annotation {
    List,
    Map,
}

fn annotation(field: &Type) -> Option<Annotation> {
    let info = field.get_basic_info();
    match (info.logical_type_ref(), info.converted_type()) {
        (Some(LogicalType::List), _) | (None, ConvertedType::LIST) => Some(Annotation::List),
        (Some(LogicalType::Map), _) | (None, ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE) => {
            Some(Annotation::Map)
        }
        _ => None,
    }
}

fn is_repeated(field: &Type) -> bool {
    let info = field.get_basic_info();
    info.has_repetition() && info.repetition() == Repetition::REPEATED
}

/// Whether the repeated `entry` of a list holds the element, or (as old writers have it) is it.
///
/// The rules are the format's for backward compatibility
/// (<https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#lists>).
fn wraps_element(list: &Type, entry: &Type) -> bool {
    let is_element = |name: &str| name == "array" || name == format!("{}_tuple", list.name());
    match entry.get_fields() {
        [only] => !is_repeated(only) && !is_element(entry.name()),
        _ => false,
    }
}
