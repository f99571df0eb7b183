//! The stack machine of pickle, protocols 0 to 5:
//! <https://docs.python.org/3/library/pickletools.html>.

mod operands;

use super::class::PythonClass;
use super::{PickleObject, PickleValue, opcode};

/// Maximum number of values on the stack. Python writes lists and dicts in batches of 1000 items;
/// only a tuple or a frozenset puts all of its items there.
const MAX_STACK: usize = 1 << 20;
/// Maximum number of open marks, which nested containers need one each.
const MAX_MARKS: usize = 1 << 10;

/// A defect, in words that follow the name of the file.
type Defect = String;

/// Decoded texts, objects and the pickled value.
pub(super) type Outcome = (Vec<u8>, Vec<PickleObject>, PickleValue);

/// Runs the program of a pickle.
pub(super) fn run(bytes: &[u8]) -> Result<Outcome, Defect> {
    let mut machine = PickleMachine {
        bytes,
        at: 0,
        opcode_at: 0,
        opcode: 0,
        decoded: Vec::new(),
        objects: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
    };
    loop {
        if let Some(root) = machine.step()? {
            let rest = bytes.len() - machine.at;
            if rest > 0 {
                return Err(format!("{rest} bytes follow the end of the pickle: it is damaged"));
            }
            return Ok((machine.decoded, machine.objects, root));
        }
    }
}

struct PickleMachine<'a> {
    bytes: &'a [u8],
    /// Offset of the next byte.
    at: usize,
    opcode_at: usize,
    opcode: u8,
    /// Texts that stand escaped in the file.
    decoded: Vec<u8>,
    objects: Vec<PickleObject>,
    stack: Vec<PickleValue>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: Vec<Option<PickleValue>>,
}

impl PickleMachine<'_> {
    /// Runs one opcode. Returns the pickled value at the end.
    fn step(&mut self) -> Result<Option<PickleValue>, Defect> {
        use PickleValue as V;
        self.opcode_at = self.at;
        self.opcode = match self.bytes.get(self.at) {
            Some(opcode) => *opcode,
            None => return Err("the pickle is cut off: it has no end".to_owned()),
        };
        self.at += 1;
        let value = match self.opcode {
            b'.' => {
                let root = self.pop()?;
                if !self.stack.is_empty() || !self.marks.is_empty() {
                    return self.damaged("values are left on the stack");
                }
                return Ok(Some(root));
            }
            0x80 => {
                let protocol = self.number::<1>()?;
                if protocol > 5 {
                    return self.damaged(&format!("protocol {protocol} is not known (0 to 5 are)"));
                }
                return Ok(None);
            }
            0x95 => {
                let length = self.number::<8>()?;
                if length > (self.bytes.len() - self.at) as u64 {
                    return Err("the pickle is cut off inside a frame".to_owned());
                }
                return Ok(None);
            }
            b'(' => {
                if self.marks.len() >= MAX_MARKS {
                    return self.damaged(&format!("more than {MAX_MARKS} containers are nested"));
                }
                self.marks.push(self.stack.len());
                return Ok(None);
            }
            b'0' => return self.pop_any(),
            b'1' => return self.pop_items().map(|_| None),
            b'2' => self.top()?,
            b'N' => V::None,
            0x88 => V::Bool(true),
            0x89 => V::Bool(false),
            b'K' => V::Int(self.number::<1>()? as i64),
            b'M' => V::Int(self.number::<2>()? as i64),
            b'J' => V::Int(i64::from(self.number::<4>()? as u32 as i32)),
            b'I' | b'L' => self.decimal_integer()?,
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            b'G' => V::Float(f64::from_bits(self.number::<8>()?.swap_bytes())),
            b'F' => {
                let line = self.line()?;
                match line.parse::<f64>() {
                    Ok(number) => V::Float(number),
                    Err(_) => return self.damaged("a float that is not written as one"),
                }
            }
            0x8c => V::Text(self.span(1)?),
            b'X' => V::Text(self.span(4)?),
            0x8d => V::Text(self.span(8)?),
            b'V' => V::Text(self.escaped()?),
            b'C' => V::Bytes(self.span(1)?),
            b'B' => V::Bytes(self.span(4)?),
            0x8e | 0x96 => V::Bytes(self.span(8)?),
            b')' => self.add(PickleObject::Tuple(Vec::new()))?,
            b']' => self.add(PickleObject::List(Vec::new()))?,
            b'}' => self.add(PickleObject::Dict(Vec::new()))?,
            0x8f => self.add(PickleObject::Set(Vec::new()))?,
            b't' => {
                let items = self.pop_items()?;
                self.add(PickleObject::Tuple(items))?
            }
            b'l' => {
                let items = self.pop_items()?;
                self.add(PickleObject::List(items))?
            }
            0x91 => {
                let items = self.pop_items()?;
                self.add(PickleObject::Set(items))?
            }
            b'd' => {
                let entries = self.pop_entries()?;
                self.add(PickleObject::Dict(entries))?
            }
            0x85..=0x87 => {
                let n = usize::from(self.opcode - 0x84);
                let floor = self.marks.last().copied().unwrap_or(0);
                if self.stack.len() < floor + n {
                    return self.damaged("the stack is empty");
                }
                let items = self.stack.split_off(self.stack.len() - n);
                self.add(PickleObject::Tuple(items))?
            }
            b'a' | b'e' | 0x90 | b's' | b'u' => return self.extend().map(|()| None),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.class(module, name)?
            }
            0x93 => {
                let (name, module) = (self.pop_name()?, self.pop_name()?);
                self.class(module, name)?
            }
            b'R' | 0x81 => self.instance()?,
            b'b' => return self.build().map(|()| None),
            b'g' => {
                let line = self.line()?;
                self.recall(line.parse().ok())?
            }
            b'h' => {
                let index = self.number::<1>()?;
                self.recall(Some(index))?
            }
            b'j' => {
                let index = self.number::<4>()?;
                self.recall(Some(index))?
            }
            b'p' => {
                let line = self.line()?;
                return self.memorize(line.parse().ok()).map(|()| None);
            }
            b'q' => {
                let index = self.number::<1>()?;
                return self.memorize(Some(index)).map(|()| None);
            }
            b'r' => {
                let index = self.number::<4>()?;
                return self.memorize(Some(index)).map(|()| None);
            }
            0x94 => return self.memorize(Some(self.memo.len() as u64)).map(|()| None),
            _ => return Err(self.refused_opcode()),
        };
        if self.stack.len() >= MAX_STACK {
            return self.damaged(&format!("more than {MAX_STACK} values are on the stack"));
        }
        self.stack.push(value);
        Ok(None)
    }

    /// Appends to a list or set, or sets entries of a dict.
    fn extend(&mut self) -> Result<(), Defect> {
        let entries = match self.opcode {
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                vec![(key, value)]
            }
            b'u' => self.pop_entries()?,
            _ => Vec::new(),
        };
        let items = match self.opcode {
            b'a' => vec![self.pop()?],
            b'e' | 0x90 => self.pop_items()?,
            _ => Vec::new(),
        };
        let target = self.top()?;
        match (self.opcode, self.object_mut(target)) {
            (b'a' | b'e', Some(PickleObject::List(list))) => list.extend(items),
            (0x90, Some(PickleObject::Set(set))) => set.extend(items),
            (b's' | b'u', Some(PickleObject::Dict(dict))) => dict.extend(entries),
            _ => return self.damaged("the object to add to is of another type"),
        }
        Ok(())
    }

    /// Notes an object of a class: REDUCE and NEWOBJ.
    fn instance(&mut self) -> Result<PickleValue, Defect> {
        let (args, class) = (self.pop()?, self.pop()?);
        let PickleValue::Class(class) = class else {
            return self.damaged("what is to be made is not a class");
        };
        let Some(PickleObject::Tuple(items)) = self.object(args) else {
            return self.damaged("the arguments are not a tuple");
        };
        let n = items.len();
        let is_call = self.opcode == b'R';
        let object = match (class, items.as_slice()) {
            (PythonClass::OrderedDict, []) if is_call => PickleObject::Dict(Vec::new()),
            (PythonClass::DefaultDict, [] | [PickleValue::None | PickleValue::Class(_)])
                if is_call =>
            {
                PickleObject::Dict(Vec::new())
            }
            (
                PythonClass::Reconstruct,
                [
                    PickleValue::Class(class),
                    PickleValue::Class(PythonClass::Builtin),
                    PickleValue::None,
                ],
            ) if is_call && (class.has_state() || *class == PythonClass::Utc) => {
                let class = *class;
                let args = self.add(PickleObject::Tuple(Vec::new()))?;
                PickleObject::Instance { class, args, state: PickleValue::None }
            }
            (PythonClass::OrderedDict | PythonClass::DefaultDict, _) => {
                return self.refused_use(class, n);
            }
            (class, [_, ..]) if class.has_state() => return self.refused_use(class, n),
            (class, _) if (is_call && class.takes_args()) || (!is_call && class.has_state()) => {
                PickleObject::Instance { class, args, state: PickleValue::None }
            }
            _ => return self.refused_use(class, n),
        };
        self.add(object)
    }

    /// Gives an instance its state.
    fn build(&mut self) -> Result<(), Defect> {
        let (new, target) = (self.pop()?, self.top()?);
        match self.object_mut(target) {
            Some(PickleObject::Instance { class, state, .. })
                if *state == PickleValue::None
                    && (class.has_state()
                        || matches!(class, PythonClass::NumpyDtype | PythonClass::Utc)) =>
            {
                *state = new;
                Ok(())
            }
            _ => self.damaged("the object takes no state"),
        }
    }

    fn class(&self, module: &str, name: &str) -> Result<PickleValue, Defect> {
        PythonClass::find(module, name).map(PickleValue::Class).ok_or_else(|| {
            let clean = |text: &str| -> String {
                text.chars()
                    .take(100)
                    .map(|c| if c.is_control() { '\u{fffd}' } else { c })
                    .collect()
            };
            let zone = match (module, name) {
                ("builtins", "getattr") => " (Python writes a time zone of zoneinfo in this way)",
                _ => "",
            };
            format!(
                "it names `{}.{}`{zone} at byte {}, which is not among the classes of documents \
                 and plain metadata",
                clean(module),
                clean(name),
                self.opcode_at
            )
        })
    }

    fn recall(&self, index: Option<u64>) -> Result<PickleValue, Defect> {
        let index = index.and_then(|index| usize::try_from(index).ok());
        match index.and_then(|index| *self.memo.get(index)?) {
            Some(value) => Ok(value),
            None => self.damaged("nothing is remembered under this number"),
        }
    }

    fn memorize(&mut self, index: Option<u64>) -> Result<(), Defect> {
        let value = self.top()?;
        // Python numbers in sequence, so that a number is less than the bytes before it.
        let index = index.and_then(|index| usize::try_from(index).ok());
        let Some(index) = index.filter(|index| *index <= self.opcode_at) else {
            return self.damaged("values are not remembered in sequence");
        };
        if self.memo.len() <= index {
            self.memo.resize(index + 1, None);
        }
        self.memo[index] = Some(value);
        Ok(())
    }

    fn add(&mut self, object: PickleObject) -> Result<PickleValue, Defect> {
        let Ok(number) = u32::try_from(self.objects.len()) else {
            return self.damaged("more than 4294967295 objects");
        };
        self.objects.push(object);
        Ok(PickleValue::Object(number))
    }

    fn object(&self, value: PickleValue) -> Option<&PickleObject> {
        match value {
            PickleValue::Object(number) => self.objects.get(number as usize),
            _ => None,
        }
    }

    fn object_mut(&mut self, value: PickleValue) -> Option<&mut PickleObject> {
        match value {
            PickleValue::Object(number) => self.objects.get_mut(number as usize),
            _ => None,
        }
    }

    fn top(&self) -> Result<PickleValue, Defect> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.get(floor..).and_then(<[_]>::last) {
            Some(value) => Ok(*value),
            None => self.damaged("the stack is empty"),
        }
    }

    fn pop(&mut self) -> Result<PickleValue, Defect> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    /// Pops a value, or the mark if it is on top.
    fn pop_any(&mut self) -> Result<Option<PickleValue>, Defect> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(None);
        }
        self.pop().map(|_| None)
    }

    /// Pops the values above the last mark, and the mark.
    fn pop_items(&mut self) -> Result<Vec<PickleValue>, Defect> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => self.damaged("there is no mark"),
        }
    }

    /// [`PickleMachine::pop_items`] as keys and values in turn.
    fn pop_entries(&mut self) -> Result<Vec<(PickleValue, PickleValue)>, Defect> {
        let items = self.pop_items()?;
        if !items.len().is_multiple_of(2) {
            return self.damaged("a key without a value");
        }
        Ok(items.chunks_exact(2).map(|entry| (entry[0], entry[1])).collect())
    }
}

/// Names and messages.
impl<'a> PickleMachine<'a> {
    /// Pops a text that is part of a class's name.
    fn pop_name(&mut self) -> Result<&'a str, Defect> {
        let PickleValue::Text(span) = self.pop()? else {
            return self.damaged("a name that is not text");
        };
        match std::str::from_utf8(span.of(self.bytes, &[])) {
            Ok(name) => Ok(name),
            Err(_) => self.damaged("a name that is not UTF-8"),
        }
    }

    fn damaged<T>(&self, defect: &str) -> Result<T, Defect> {
        Err(format!(
            "the pickle is damaged, or of an unknown kind: {} at byte {}: {defect}",
            self.opcode_name(),
            self.opcode_at
        ))
    }

    fn refused_use<T>(&self, class: PythonClass, n: usize) -> Result<T, Defect> {
        Err(format!(
            "{} at byte {} uses {} with {n} arguments in a way that is not known",
            self.opcode_name(),
            self.opcode_at,
            class.name()
        ))
    }

    fn refused_opcode(&self) -> Defect {
        let (name, why, at) =
            (self.opcode_name(), opcode::why_refused(self.opcode), self.opcode_at);
        format!("the opcode {name}{why} at byte {at} is not one that LangChain's stores have")
    }

    fn opcode_name(&self) -> String {
        opcode::name(self.opcode)
    }
}
