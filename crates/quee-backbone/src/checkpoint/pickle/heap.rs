//! The values that a pickle builds.

use super::chunks::Chunks;
use super::globals::Global;
use crate::checkpoint::dtype::Dtype;

/// A value. Containers live in a [`Heap`], so that values that contain themselves do no harm.
#[derive(Clone, Copy, Debug)]
pub(in crate::checkpoint) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Global(Global),
    /// Index into the heap.
    Node(u32),
}

/// A value that does not fit into a [`Value`].
#[derive(Debug)]
pub(in crate::checkpoint) enum Node {
    Text(Box<str>),
    Bytes(Box<[u8]>),
    /// An integer beyond 64 bits, little-endian.
    Long(Box<[u8]>),
    Tuple(Box<[Value]>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// An object of a known class that is of no use here.
    Inert,
    Storage(Box<StorageId>),
    Tensor(Box<TensorNode>),
}

/// A reference to elements outside of the pickle.
#[derive(Debug)]
pub(in crate::checkpoint) struct StorageId {
    /// Element type; `None` for a storage of mere bytes.
    pub dtype: Option<Dtype>,
    /// Name of the storage in the file.
    pub key: String,
    /// Number of elements, or of bytes.
    pub count: u64,
    /// First element, for a part of another storage in old files.
    pub offset: u64,
    /// Whether it is the whole storage of that key, so that `count` is its number of elements.
    pub whole: bool,
}

impl StorageId {
    /// Bytes of an element.
    pub fn element_size(&self) -> u64 {
        self.dtype.map_or(1, Dtype::size)
    }

    /// Number of bytes.
    pub fn bytes(&self) -> Option<u64> {
        self.count.checked_mul(self.element_size())
    }
}

/// A tensor as the pickle describes it. Nothing is checked against the storage yet.
#[derive(Debug)]
pub(in crate::checkpoint) struct TensorNode {
    /// A node that is a [`StorageId`].
    pub storage: Value,
    pub dtype: Dtype,
    /// First element in the storage.
    pub offset: u64,
    pub shape: Vec<usize>,
    /// In elements.
    pub strides: Vec<usize>,
}

/// Bytes that the contents of a growing vector may take while it grows: the old copy and the doubled new one.
const GROWTH: u64 = 3;

/// Owns what a pickle builds, within a budget.
pub(in crate::checkpoint) struct Heap {
    nodes: Chunks<Node>,
    /// Bytes that may still be allocated.
    budget: u64,
}

/// What is wrong with an instruction.
pub(super) type Reason = std::borrow::Cow<'static, str>;

impl Heap {
    /// A heap that allocates `budget` bytes at most.
    pub fn new(budget: u64) -> Self {
        Self { nodes: Chunks::new(), budget }
    }

    /// Takes `count` values of the type `T` in a growing vector from the budget.
    pub fn charge<T>(&mut self, count: usize) -> Result<(), Reason> {
        self.spend(GROWTH * (count as u64).saturating_mul(size_of::<T>() as u64))
    }

    /// Takes bytes from the budget.
    pub fn spend(&mut self, bytes: u64) -> Result<(), Reason> {
        self.budget = self.budget.checked_sub(bytes).ok_or("its values would take many times the file's size")?;
        Ok(())
    }

    /// Adds a node.
    pub fn add(&mut self, node: Node) -> Result<Value, Reason> {
        self.spend(size_of::<Node>() as u64)?;
        self.spend(match &node {
            Node::Text(text) => text.len() as u64,
            Node::Bytes(bytes) | Node::Long(bytes) => bytes.len() as u64,
            Node::Tuple(items) => size_of_val(&**items) as u64,
            Node::List(items) => GROWTH * size_of_val(items.as_slice()) as u64,
            Node::Dict(items) => GROWTH * size_of_val(items.as_slice()) as u64,
            Node::Inert => 0,
            Node::Storage(storage) => (size_of::<StorageId>() + storage.key.len()) as u64,
            Node::Tensor(tensor) => {
                let axes = (tensor.shape.len() + tensor.strides.len()) * size_of::<usize>();
                (size_of::<TensorNode>() + axes) as u64
            }
        })?;
        let index = u32::try_from(self.nodes.len()).map_err(|_| "it has too many values")?;
        self.nodes.push(node);
        Ok(Value::Node(index))
    }

    /// All storages that were named.
    pub fn storages(&self) -> impl Iterator<Item = &StorageId> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Storage(storage) => Some(&**storage),
            _ => None,
        })
    }

    /// The node of a value that has one.
    pub fn node(&self, value: Value) -> Option<&Node> {
        let Value::Node(index) = value else { return None };
        self.nodes.get(index as usize)
    }

    /// As [`node`](Self::node).
    pub fn node_mut(&mut self, value: Value) -> Option<&mut Node> {
        let Value::Node(index) = value else { return None };
        self.nodes.get_mut(index as usize)
    }

    /// The storage that a value names.
    pub fn storage(&self, value: Value) -> Option<&StorageId> {
        match self.node(value)? {
            Node::Storage(storage) => Some(storage),
            _ => None,
        }
    }

    /// Text of a string.
    pub fn text(&self, value: Value) -> Option<&str> {
        match self.node(value)? {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Elements of a tuple or list.
    pub fn items(&self, value: Value) -> Option<&[Value]> {
        match self.node(value)? {
            Node::Tuple(items) => Some(items),
            Node::List(items) => Some(items),
            _ => None,
        }
    }

    /// Pairs of a dictionary, in the order of insertion.
    pub fn pairs(&self, value: Value) -> Option<&[(Value, Value)]> {
        match self.node(value)? {
            Node::Dict(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// Adds to a list. What is not known is not looked into.
    pub fn extend_list(&mut self, list: Value, items: &[Value]) -> Result<(), Reason> {
        self.charge::<Value>(items.len())?;
        match self.node_mut(list) {
            Some(Node::List(list)) => list.extend_from_slice(items),
            Some(Node::Inert) => {}
            _ => return Err("elements are added to what is no list".into()),
        }
        Ok(())
    }

    /// Adds to a dictionary: keys and values in turn.
    pub fn extend_dict(&mut self, dict: Value, items: &[Value]) -> Result<(), Reason> {
        self.charge::<Value>(items.len())?;
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("a key is without a value".into());
        }
        match self.node_mut(dict) {
            Some(Node::Dict(dict)) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            Some(Node::Inert) => {}
            _ => return Err("keys are added to what is no dictionary".into()),
        }
        Ok(())
    }
}
