//! Writing the CNN as ONNX, in fp32 and in static int8. Strides and dilations are stated although ONNX has defaults, because not every reader knows them.

mod fp32;
mod int8;
mod proto;
mod ranges;

pub use fp32::fp32;
pub use int8::int8;
pub use ranges::Ranges;
