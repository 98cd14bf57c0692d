use bytes::Bytes;

use crate::labels::top;
use crate::*;

fn tensor(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    Tensor::from_f32(shape.to_vec(), (0..count).map(|index| index as f32).collect()).unwrap()
}

fn cause<T: std::fmt::Debug>(outcome: Result<T>) -> String {
    outcome.unwrap_err().to_string()
}

#[test]
fn public_types_cross_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Tensor>();
    check::<Batch>();
    check::<Signature>();
    check::<Checkpoint>();
    check::<Options>();
    check::<Error>();
    fn check_model<T: Send + ?Sized>() {}
    check_model::<dyn Model>();
}

#[test]
fn a_tensor_has_as_many_bytes_as_datatype_and_shape_say() {
    let check = |datatype, shape: &[usize], bytes: &[u8]| {
        Tensor::new(datatype, shape.to_vec(), Bytes::copy_from_slice(bytes))
            .map(|tensor| tensor.shape().to_vec())
    };
    assert!(check(Datatype::Int16, &[2, 3], &[0; 12]).is_ok());
    assert!(check(Datatype::Fp64, &[], &[0; 8]).is_ok());
    assert!(check(Datatype::Fp32, &[0, 7], &[]).is_ok());
    assert!(
        cause(check(Datatype::Int16, &[2, 3], &[0; 11]))
            .contains("INT16[2, 3] needs 12 bytes, got 11")
    );
    assert!(cause(check(Datatype::Fp32, &[usize::MAX, 2], &[])).contains("too large"));
    assert!(cause(check(Datatype::Fp32, &[usize::MAX], &[])).contains("needs too many bytes"));
    assert!(cause(check(Datatype::Bool, &[2], &[1, 2])).contains("neither 0 nor 1"));
}

#[test]
fn strings_stand_behind_their_lengths() {
    let new = |count: usize, bytes: &'static [u8]| {
        Tensor::new(Datatype::Bytes, vec![count], Bytes::from_static(bytes))
    };
    let strings = new(2, b"\x02\0\0\0hi\0\0\0\0").unwrap().to_strings().unwrap();
    assert_eq!(strings, [Bytes::from_static(b"hi"), Bytes::new()]);
    assert!(cause(new(1, b"\x03\0\0\0hi")).contains("cut off in element 0"));
    assert!(cause(new(1, b"\xff\xff\xff\xffhi")).contains("cut off in element 0"));
    assert!(cause(new(1, b"\0\0")).contains("cut off"));
    assert!(cause(new(3, b"\0\0\0\0")).contains("needs 3 elements, got 1"));
    assert!(tensor(&[1]).to_strings().is_err());
}

#[test]
fn numbers_come_back_aligned_or_not() {
    let numbers = tensor(&[2, 3]);
    assert_eq!(numbers.to_f32().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let shifted = Bytes::from([b"x", &numbers.bytes()[..]].concat()).slice(1..);
    let shifted = Tensor::new(Datatype::Fp32, vec![6], shifted).unwrap();
    assert_eq!(shifted.to_f32().unwrap(), numbers.to_f32().unwrap());
    let bytes = Tensor::new(Datatype::Uint8, vec![1], vec![0].into()).unwrap();
    assert!(cause(bytes.to_f32()).contains("datatype is UINT8, expected FP32"));
}

#[test]
fn rows_are_cut_out_and_put_together() {
    let whole = tensor(&[5, 2]);
    let (head, tail) = (whole.slice(0..2).unwrap(), whole.slice(2..5).unwrap());
    assert_eq!((head.shape(), tail.to_f32().unwrap()[0]), (&[2, 2][..], 4.0));
    assert_eq!(Tensor::concat(&[head.clone(), tail]).unwrap(), whole);
    assert_eq!(whole.slice(5..5).unwrap().shape(), [0, 2]);
    #[expect(clippy::reversed_empty_ranges, reason = "the point of the test")]
    let reversed = 3..2;
    assert!(whole.slice(4..6).is_err() && whole.slice(reversed).is_err());
    assert!(Tensor::concat(&[head, tensor(&[2, 3])]).is_err());
    assert!(Tensor::concat(&[]).is_err() && Tensor::concat(&[tensor(&[])]).is_err());
}

#[test]
fn a_batch_has_each_name_once_and_knows_its_rows() {
    let twice = Batch::new(vec![("a".into(), tensor(&[1])), ("a".into(), tensor(&[1]))]);
    assert!(cause(twice).contains("\"a\" comes twice"));
    let uneven = Batch::new(vec![("a".into(), tensor(&[1])), ("b".into(), tensor(&[2]))]).unwrap();
    assert!(cause(uneven.rows()).contains("\"b\" has 2 rows, expected 1"));
    assert_eq!(Batch::single("a", tensor(&[3, 2])).rows().unwrap(), 3);
}

#[test]
fn names_of_datatypes_come_back() {
    for datatype in Datatype::ALL {
        assert_eq!(datatype.name().parse::<Datatype>().unwrap(), datatype);
        assert_eq!(serde_json::to_value(datatype).unwrap(), datatype.name());
    }
}

#[test]
fn the_top_class_has_the_highest_score() {
    assert_eq!(top(&[0.1, 0.7, 0.7, 0.2]), Some((1, 0.7)));
    assert_eq!(top(&[]), None);
    for labels in Labels::ALL {
        assert_eq!(labels.name().parse::<Labels>().unwrap(), labels);
    }
    assert_eq!((Labels::FashionMnist.get(9), Labels::Mnist.get(10)), (Some("Ankle boot"), None));
}
