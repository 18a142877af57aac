"""The stubs' checker, on a few declarations as the npm package writes them."""

import pytest

from ios_demo.tools.declarations import Declarations, check_line, parameters

TYPESCRIPT = """
/**
 * @since 11.0
 */
declare class MLModel extends NSObject {

\t/**
\t * @since 16.0
\t */
\tstatic compileModelAtURLCompletionHandler(modelURL: NSURL, handler: (p1: NSURL | null, p2: NSError | null) => void): void;

\treadonly modelDescription: MLModelDescription;

\t/**
\t * @since 18.0
\t */
\tnewState(): MLState;

\tpredictionFromFeaturesError(input: MLFeatureProvider, error?: interop.Reference<NSError>): MLFeatureProvider | null;
}

declare class Special extends MLModel {
}

declare const enum MLComputeUnits {

\tCPUOnly = 0,
}

declare function CVPixelBufferLockBaseAddress(pixelBuffer: any, lockFlags: CVPixelBufferLockFlags): number;

declare var AVMediaTypeVideo: string;
"""


@pytest.fixture
def declared(tmp_path):
    folder = tmp_path / "lib" / "ios" / "objc-x86_64"
    folder.mkdir(parents=True)
    (folder / "objc!CoreML.d.ts").write_text(TYPESCRIPT)
    return Declarations(tmp_path, ["CoreML"])


@pytest.mark.parametrize(
    "line",
    [
        "func prediction(from input: P) throws -> P { fatalError() }  // objc -[MLModel predictionFromFeatures:error:]",
        "func prediction(from input: P) throws -> P  // objc -[Special predictionFromFeatures:error:]",
        "class func compileModel(at url: URL) async throws -> URL { x() }  // objc +[MLModel compileModelAtURL:completionHandler:]",
        "public var modelDescription: D { fatalError() }  // objc MLModel.modelDescription",
        "case cpuOnly  // objc MLComputeUnits/CPUOnly",
        "public func CVPixelBufferLockBaseAddress(_ b: B, _ f: F) -> R  // objc CVPixelBufferLockBaseAddress(2)",
        "public static let video = T()  // objc AVMediaTypeVideo",
        "let anything: Int  // swift",
        "}",
    ],
)
def test_what_is_declared_passes(declared, line):
    assert check_line(line, declared, newest=17.0) is None


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("func prediction(from input: P) throws -> P", "says not what"),
        ("func prediction(of input: P) throws -> P  // objc -[MLModel predictionOfFeatures:error:]", "no -"),
        ("func prediction(from a: P, b: Int) throws -> P  // objc -[MLModel predictionFromFeatures:error:]", "2 parameters"),
        ("func prediction(from input: P) -> P  // objc -[MLModel predictionFromFeatures:error:]", "has 2"),
        ("func compileModel(at url: URL) async throws -> URL  // objc -[MLModel compileModelAtURL:completionHandler:]", "no -"),
        ("func newState() -> S  // objc -[MLModel newState]", "came with iOS 18"),
        ("public var description: D  // objc MLModel.descriptions", "no MLModel.descriptions"),
        ("case gpu  // objc MLComputeUnits/GPU", "no MLComputeUnits/GPU"),
        ("public func CVPixelBufferLockBaseAddress(_ b: B) -> R  // objc CVPixelBufferLockBaseAddress(1)", "2 parameters"),
        ("public static let audio = T()  // objc AVMediaTypeAudio", "no AVMediaTypeAudio"),
    ],
)
def test_what_is_not_is_named(declared, line, problem):
    assert problem in check_line(line, declared, newest=17.0)


def test_parameters_are_counted_outside_further_brackets():
    assert parameters("_ a: [String: Int], b: (_ c: Int) -> Void, d: X<Y: Z>") == 3
    assert parameters("p: (p1: NSURL | null) => void, q: number") == 2
    assert parameters("") == 0
