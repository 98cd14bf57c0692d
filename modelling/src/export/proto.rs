//! The part of ONNX's protobuf that the CNN needs, and short ways to build it.

use prost::Message;

use crate::Labels;
use crate::torch::{CLASSES, INPUT, OUTPUT, SIDE};

/// ONNX's format version, and the version of its operators: old enough for every current reader.
const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;

/// ONNX's numbers for datatypes.
pub(super) const FLOAT: i32 = 1;
pub(super) const UINT8: i32 = 2;
pub(super) const INT8: i32 = 3;
pub(super) const INT32: i32 = 6;

/// ONNX's numbers for kinds of attributes.
const INT: i32 = 2;
const INTS: i32 = 7;

/// The domain of ONNX Runtime's own operators.
pub(super) const MICROSOFT: &str = "com.microsoft";

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<StringStringEntryProto>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct StringStringEntryProto {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
    #[prost(string, tag = "7")]
    domain: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AttributeProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
    #[prost(int64, repeated, tag = "8")]
    ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    r#type: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfoProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TypeProtoTensor>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeProtoTensor {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(oneof = "Length", tags = "1, 2")]
    value: Option<Length>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Length {
    #[prost(int64, tag = "1")]
    Fixed(i64),
    #[prost(string, tag = "2")]
    Named(String),
}

/// A model from `image` to `probabilities`, as bytes.
pub(super) fn model(
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    labels: Labels,
) -> Vec<u8> {
    let side = SIDE as i64;
    let mut opsets = vec![(String::new(), OPSET)];
    if nodes.iter().any(|node| node.domain == MICROSOFT) {
        opsets.push((MICROSOFT.to_owned(), 1));
    }
    let opset = |(domain, version)| OperatorSetIdProto { domain, version };
    let about = [("dataset", labels.name().to_owned()), ("classes", labels.classes().join(","))];
    let entry = |(key, value): (&str, String)| StringStringEntryProto { key: key.into(), value };
    ModelProto {
        ir_version: IR_VERSION,
        producer_name: "forebay".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(GraphProto {
            node: nodes,
            name: "cnn".to_owned(),
            initializer: initializers,
            input: vec![value(INPUT, &[1, side, side])],
            output: vec![value(OUTPUT, &[CLASSES as i64])],
        }),
        opset_import: opsets.into_iter().map(opset).collect(),
        metadata_props: about.into_iter().map(entry).collect(),
    }
    .encode_to_vec()
}

/// An input or output of single precision, its rows as many as there are.
fn value(name: &str, row: &[i64]) -> ValueInfoProto {
    let batch = Length::Named("batch".to_owned());
    let lengths = [batch].into_iter().chain(row.iter().map(|length| Length::Fixed(*length)));
    let dim = lengths.map(|length| Dimension { value: Some(length) }).collect();
    let tensor = TypeProtoTensor { elem_type: FLOAT, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}

/// A node with one output, after which it is named.
pub(super) fn node(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        name: output.to_owned(),
        op_type: op_type.to_owned(),
        ..NodeProto::default()
    }
}

impl NodeProto {
    pub(super) fn with(mut self, name: &str, value: i64) -> Self {
        let name = name.to_owned();
        let attribute = AttributeProto { name, i: Some(value), ints: vec![], r#type: INT };
        self.attribute.push(attribute);
        self
    }

    pub(super) fn with_all(mut self, name: &str, values: &[i64]) -> Self {
        let (name, ints) = (name.to_owned(), values.to_vec());
        self.attribute.push(AttributeProto { name, i: None, ints, r#type: INTS });
        self
    }

    pub(super) fn of(mut self, domain: &str) -> Self {
        self.domain = domain.to_owned();
        self
    }

    /// Makes it a 3x3 convolution without padding: height and width shrink by 2.
    pub(super) fn convolution(self) -> Self {
        self.with_all("kernel_shape", &[3, 3])
            .with_all("pads", &[0, 0, 0, 0])
            .with_all("strides", &[1, 1])
            .with_all("dilations", &[1, 1])
            .with("group", 1)
    }
}

/// Halves height and width, keeping the largest of four; of an odd length the last is left out.
pub(super) fn max_pool(input: &str, output: &str) -> NodeProto {
    node("MaxPool", &[input], output)
        .with_all("kernel_shape", &[2, 2])
        .with_all("strides", &[2, 2])
        .with_all("pads", &[0, 0, 0, 0])
        .with_all("dilations", &[1, 1])
}

/// A constant, with elements in row-major order; no shape is a single number.
pub(super) fn tensor<T: bytemuck::Pod>(
    name: &str,
    data_type: i32,
    shape: &[usize],
    elements: &[T],
) -> TensorProto {
    TensorProto {
        dims: shape.iter().map(|length| *length as i64).collect(),
        data_type,
        name: name.to_owned(),
        // Little-endian, as ONNX wants it: this crate is not built for other machines.
        raw_data: bytemuck::cast_slice(elements).to_vec(),
    }
}
