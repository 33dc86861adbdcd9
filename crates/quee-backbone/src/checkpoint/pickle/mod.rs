//! A reader of pickles that builds plain data and runs nothing.
//!
//! A pickle is a program for a stack machine (Python's `pickletools` documents it). This one knows the instructions of
//! protocols 2 to 5 as PyTorch writes them. Functions and classes are looked up in a [list](globals) of known ones, which
//! are never called; whatever else a pickle refers to is refused by name. Nothing here recurses, and all values together
//! stay within a budget.

mod chunks;
mod globals;
mod heap;
mod input;
mod objects;
mod opcodes;

pub(super) use heap::{Heap, Node, StorageId, TensorNode, Value};
pub(super) use input::Input;

use super::CheckpointError;
use chunks::Chunks;
use heap::Reason;

/// Bytes that the values of any pickle may take, however short the file is.
const LEAST_BUDGET: u64 = 1 << 16;

/// What stops the machine.
enum Fault {
    Reason(Reason),
    Global(String),
    Opcode(u8),
    /// An error of the source, which names its place itself.
    Source(CheckpointError),
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason)
    }
}

impl From<&'static str> for Fault {
    fn from(reason: &'static str) -> Self {
        Self::Reason(reason.into())
    }
}

impl From<CheckpointError> for Fault {
    fn from(error: CheckpointError) -> Self {
        Self::Source(error)
    }
}

/// Reads one pickle and leaves the input after it. The values may take `times` the length of the source.
///
/// # Errors
/// When the pickle is damaged, too large, or holds an unknown instruction or global.
pub(super) fn load(input: &mut Input, times: u64) -> Result<(Heap, Value), CheckpointError> {
    let budget = input.source.length().saturating_mul(times).saturating_add(LEAST_BUDGET);
    let mut machine = Machine::new(budget);
    let (source, place, start) = (input.source, input.place, input.start);
    loop {
        let position = input.position() - start;
        match machine.step(input) {
            Ok(None) => {}
            Ok(Some(value)) => return Ok((machine.heap, value)),
            Err(fault) => {
                let origin = source.origin().to_owned();
                return Err(match fault {
                    Fault::Reason(reason) => {
                        CheckpointError::Pickle { origin, reason: reason.into_owned(), position, place }
                    }
                    Fault::Global(global) => CheckpointError::Global { origin, global, position, place },
                    Fault::Opcode(opcode) => {
                        CheckpointError::Opcode { origin, opcode: opcodes::describe(opcode), position, place }
                    }
                    Fault::Source(error) => error,
                });
            }
        }
    }
}

struct Machine {
    heap: Heap,
    stack: Vec<Value>,
    /// Greatest height of the stack, which was taken from the budget.
    highest: usize,
    /// Heights of the stack at the marks.
    marks: Vec<usize>,
    /// Greatest number of marks, which was taken from the budget.
    most_marks: usize,
    memo: Chunks<Value>,
}

impl Machine {
    fn new(budget: u64) -> Self {
        let heap = Heap::new(budget);
        Self { heap, stack: Vec::new(), highest: 0, marks: Vec::new(), most_marks: 0, memo: Chunks::new() }
    }

    /// Performs one instruction; the last one gives the pickle's value.
    fn step(&mut self, input: &mut Input) -> Result<Option<Value>, Fault> {
        use opcodes::*;
        let opcode = input.byte()?;
        match opcode {
            PROTO => match input.byte()? {
                2..=5 => {}
                other => return Err(Reason::from(format!("protocol {other} instead of 2 to 5")).into()),
            },
            FRAME => {
                input.array::<8>()?;
            }
            STOP => return Ok(Some(self.pop()?)),

            NONE => self.push(Value::None)?,
            NEWTRUE => self.push(Value::Bool(true))?,
            NEWFALSE => self.push(Value::Bool(false))?,
            BININT1 => {
                let n = input.byte()?;
                self.push(Value::Int(n.into()))?;
            }
            BININT2 => {
                let n = u16::from_le_bytes(input.array()?);
                self.push(Value::Int(n.into()))?;
            }
            BININT => {
                let n = i32::from_le_bytes(input.array()?);
                self.push(Value::Int(n.into()))?;
            }
            LONG1 => {
                let length = input.byte()?;
                self.long(input, length.into())?;
            }
            LONG4 => {
                let length = u32::from_le_bytes(input.array()?);
                self.long(input, length.into())?;
            }
            BINFLOAT => {
                input.array::<8>()?;
                self.push(Value::Float)?;
            }

            SHORT_BINUNICODE | SHORT_BINSTRING | SHORT_BINBYTES => {
                let length = input.byte()?;
                self.string(input, opcode, length.into())?;
            }
            BINUNICODE | BINSTRING | BINBYTES => {
                let length = u32::from_le_bytes(input.array()?);
                self.string(input, opcode, length.into())?;
            }
            BINUNICODE8 | BINBYTES8 | BYTEARRAY8 => {
                let length = u64::from_le_bytes(input.array()?);
                self.string(input, opcode, length)?;
            }

            MARK => {
                self.marks.push(self.stack.len());
                if self.marks.len() > self.most_marks {
                    self.heap.charge::<usize>(1)?;
                    self.most_marks += 1;
                }
            }
            // Taking off a mark is how Python skips unused values.
            POP if self.marks.last() == Some(&self.stack.len()) => drop(self.marks.pop()),
            POP => drop(self.pop()?),
            POP_MARK => drop(self.since_mark()?),
            DUP => {
                let top = self.top()?;
                self.push(top)?;
            }

            EMPTY_TUPLE => self.make(Node::Tuple([].into()))?,
            TUPLE1 | TUPLE2 | TUPLE3 => {
                let count = usize::from(opcode - TUPLE1) + 1;
                let from = self.stack.len().checked_sub(count).filter(|&from| from >= self.floor());
                let items = self.stack.split_off(from.ok_or("a tuple of too few values")?);
                self.make(Node::Tuple(items.into()))?;
            }
            TUPLE => {
                let items = self.since_mark()?;
                self.make(Node::Tuple(items.into()))?;
            }
            EMPTY_LIST => self.make(Node::List(Vec::new()))?,
            LIST => {
                let items = self.since_mark()?;
                self.make(Node::List(items))?;
            }
            APPEND => {
                let item = self.pop()?;
                let list = self.top()?;
                self.heap.extend_list(list, &[item])?;
            }
            APPENDS => {
                let items = self.since_mark()?;
                let list = self.top()?;
                self.heap.extend_list(list, &items)?;
            }
            EMPTY_DICT => self.make(Node::Dict(Vec::new()))?,
            DICT => {
                let items = self.since_mark()?;
                self.make(Node::Dict(Vec::new()))?;
                let dict = self.top()?;
                self.heap.extend_dict(dict, &items)?;
            }
            SETITEM => {
                let (value, key) = (self.pop()?, self.pop()?);
                let dict = self.top()?;
                self.heap.extend_dict(dict, &[key, value])?;
            }
            SETITEMS => {
                let items = self.since_mark()?;
                let dict = self.top()?;
                self.heap.extend_dict(dict, &items)?;
            }
            EMPTY_SET => self.make(Node::Inert)?,
            FROZENSET => {
                self.since_mark()?;
                self.make(Node::Inert)?;
            }
            ADDITEMS => {
                self.since_mark()?;
                self.top()?;
            }

            GLOBAL => {
                let (module, name) = (input.line()?, input.line()?);
                self.global(&module, &name)?;
            }
            STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |value| self.heap.text(value).map(str::to_owned).ok_or("a name that is no text");
                let (module, name) = (text(module)?, text(name)?);
                self.global(&module, &name)?;
            }
            REDUCE | NEWOBJ => {
                let (args, callable) = (self.pop()?, self.pop()?);
                let made = objects::call(&mut self.heap, callable, args)?;
                self.push(made)?;
            }
            NEWOBJ_EX => {
                let (_keywords, args, callable) = (self.pop()?, self.pop()?, self.pop()?);
                let made = objects::call(&mut self.heap, callable, args)?;
                self.push(made)?;
            }
            // Attributes of an object: options, or the versions of modules that hang on a state_dict. None is of use.
            BUILD => {
                self.pop()?;
                let object = self.top()?;
                match self.heap.node(object) {
                    Some(Node::Dict(_) | Node::Inert | Node::Tensor(_)) => {}
                    _ => return Err("attributes of something that has none".into()),
                }
            }
            BINPERSID => {
                let id = self.pop()?;
                let storage = objects::storage(&mut self.heap, id)?;
                self.push(storage)?;
            }

            BINPUT => {
                let index = input.byte()?;
                self.put(index.into())?;
            }
            LONG_BINPUT => {
                let index = u32::from_le_bytes(input.array()?);
                self.put(index as usize)?;
            }
            MEMOIZE => self.put(self.memo.len())?,
            BINGET => {
                let index = input.byte()?;
                self.get(index.into())?;
            }
            LONG_BINGET => {
                let index = u32::from_le_bytes(input.array()?);
                self.get(index as usize)?;
            }
            other => return Err(Fault::Opcode(other)),
        }
        Ok(None)
    }

    fn push(&mut self, value: Value) -> Result<(), Fault> {
        self.stack.push(value);
        if self.stack.len() > self.highest {
            self.heap.charge::<Value>(1)?;
            self.highest += 1;
        }
        Ok(())
    }

    fn make(&mut self, node: Node) -> Result<(), Fault> {
        let value = self.heap.add(node)?;
        self.push(value)
    }

    /// Height of the stack below which the values belong to an outer container.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Value, Fault> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn top(&self) -> Result<Value, Fault> {
        match self.stack.last() {
            Some(&top) if self.stack.len() > self.floor() => Ok(top),
            _ => Err("it takes a value from an empty stack".into()),
        }
    }

    fn since_mark(&mut self) -> Result<Vec<Value>, Fault> {
        let mark = self.marks.pop().ok_or("it goes back to a mark that is not there")?;
        Ok(self.stack.split_off(mark))
    }

    fn put(&mut self, index: usize) -> Result<(), Fault> {
        let value = self.top()?;
        let more = index.saturating_add(1).saturating_sub(self.memo.len());
        self.heap.spend((more as u64).saturating_mul(size_of::<Value>() as u64))?;
        (0..more).for_each(|_| self.memo.push(Value::None));
        if let Some(place) = self.memo.get_mut(index) {
            *place = value;
        }
        Ok(())
    }

    fn get(&mut self, index: usize) -> Result<(), Fault> {
        let value = *self.memo.get(index).ok_or("it recalls a value that was not stored")?;
        self.push(value)
    }

    /// A little-endian integer in two's complement.
    fn long(&mut self, input: &mut Input, length: u64) -> Result<(), Fault> {
        let bytes = input.take(length)?;
        if bytes.len() > 8 {
            return self.make(Node::Long(bytes));
        }
        let negative = bytes.last().is_some_and(|&byte| byte & 0x80 != 0);
        let mut all = [if negative { 0xff } else { 0 }; 8];
        all[..bytes.len()].copy_from_slice(&bytes);
        self.push(Value::Int(i64::from_le_bytes(all)))
    }

    fn string(&mut self, input: &mut Input, opcode: u8, length: u64) -> Result<(), Fault> {
        let bytes = input.take(length)?;
        let binary =
            matches!(opcode, opcodes::SHORT_BINBYTES | opcodes::BINBYTES | opcodes::BINBYTES8 | opcodes::BYTEARRAY8);
        let python2 = matches!(opcode, opcodes::SHORT_BINSTRING | opcodes::BINSTRING);
        match String::from_utf8(bytes.into_vec()) {
            Ok(text) if !binary => self.make(Node::Text(text.into())),
            // Strings of Python 2 may hold any bytes.
            Err(e) if binary || python2 => self.make(Node::Bytes(e.into_bytes().into())),
            Ok(text) => self.make(Node::Bytes(text.into_bytes().into())),
            Err(_) => Err("a text that is not UTF-8".into()),
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), Fault> {
        match globals::find(module, name) {
            Some(global) => self.push(Value::Global(global)),
            None => {
                // The name goes into a message for a person.
                let shown: String = format!("{module}.{name}").escape_default().take(200).collect();
                Err(Fault::Global(shown))
            }
        }
    }
}

#[cfg(test)]
mod tests;
