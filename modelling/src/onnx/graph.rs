//! What we check of an ONNX file before ONNX Runtime sees it: that it is whole, of a sensible size, and refers to no other file.
//! The messages below are the part of ONNX's protobuf that this needs; all other fields are skipped.

use prost::Message;

use crate::{Checkpoint, Error, Result};

/// The most nodes and weights that a graph may have, those of its inner graphs included.
const NODES_MAX: usize = 100_000;

const EXTERNAL: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "15")]
    sparse_initializer: Vec<SparseTensorProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(message, optional, tag = "5")]
    t: Option<TensorProto>,
    #[prost(message, optional, tag = "6")]
    g: Option<GraphProto>,
    #[prost(message, repeated, tag = "10")]
    tensors: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    graphs: Vec<GraphProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(string, tag = "8")]
    name: String,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

#[derive(Clone, PartialEq, Message)]
struct SparseTensorProto {
    #[prost(message, optional, tag = "1")]
    values: Option<TensorProto>,
    #[prost(message, optional, tag = "2")]
    indices: Option<TensorProto>,
}

/// What a model file says of itself.
pub(super) struct Facts {
    /// Whether it computes with 8-bit integers.
    pub quantised: bool,
}

/// Fails with `CorruptModel`, `LimitExceeded`, or `Unsupported` for weights that are kept in another file.
pub(super) fn check(checkpoint: &Checkpoint) -> Result<Facts> {
    // The decoder bounds the depth of inner graphs.
    let model = ModelProto::decode(checkpoint.bytes().as_ref())
        .map_err(|error| checkpoint.corrupt(error.to_string()))?;
    let graph = model
        .graph
        .filter(|graph| !graph.node.is_empty())
        .ok_or_else(|| checkpoint.corrupt("it has no graph"))?;
    let mut found = Found::default();
    found.visit(&graph);
    if let Some(name) = found.external {
        let reason = format!("{:?} keeps the weight {name:?} in another file", checkpoint.path());
        return Err(Error::Unsupported { reason });
    }
    if found.nodes > NODES_MAX {
        let what = format!("number of nodes of {:?}", checkpoint.path());
        return Err(Error::LimitExceeded {
            what,
            actual: found.nodes as u64,
            limit: NODES_MAX as u64,
        });
    }
    Ok(Facts { quantised: found.quantised })
}

#[derive(Default)]
struct Found {
    nodes: usize,
    quantised: bool,
    external: Option<String>,
}

impl Found {
    fn visit(&mut self, graph: &GraphProto) {
        self.nodes += graph.node.len() + graph.initializer.len();
        graph.initializer.iter().for_each(|tensor| self.visit_tensor(tensor));
        for sparse in &graph.sparse_initializer {
            sparse
                .values
                .iter()
                .chain(&sparse.indices)
                .for_each(|tensor| self.visit_tensor(tensor));
        }
        for node in &graph.node {
            self.quantised |=
                node.op_type.starts_with("QLinear") || node.op_type == "DequantizeLinear";
            for attribute in &node.attribute {
                attribute
                    .t
                    .iter()
                    .chain(&attribute.tensors)
                    .for_each(|tensor| self.visit_tensor(tensor));
                attribute.g.iter().chain(&attribute.graphs).for_each(|graph| self.visit(graph));
            }
        }
    }

    fn visit_tensor(&mut self, tensor: &TensorProto) {
        if tensor.data_location == EXTERNAL {
            self.external.get_or_insert_with(|| tensor.name.clone());
        }
    }
}
