import AcwfaceKernel

/// The library of `detector.json` that the custom layer is: in this package, at the kernel's version.
public let customLayerLibrary = (name: "acwface_coreml", version: String(cString: acwface_kernel_version()))

/// Why an artifact cannot be run here, with the two things that do not agree.
public enum Incompatibility: Error, Equatable {
  /// Of another runtime's format.
  case format(needed: String, present: String)

  /// Made for a newer iOS.
  case system(needed: String, present: String)

  /// A custom layer that the app has not.
  case library(needed: String)

  /// The kernel is not the one that the artifact was made with.
  case libraryVersion(needed: String, present: String)

  /// No picture of fixed size.
  case input(String)

  /// Not one output of each meaning, landmarks being optional, with a row for each anchor.
  case outputs(String)
}

/// Checks an artifact against Core ML and this package.
///
/// - Parameter system: version of iOS, numbers between dots.
/// - Throws: ``Incompatibility``: something stands in the way. ``FormatError``: the anchors make no sense.
public func checkCompatibility(_ manifest: Manifest, system: String) throws {
  guard manifest.format == "coreml", manifest.runtime.name == "coreml" else {
    throw Incompatibility.format(needed: "\(manifest.format), \(manifest.runtime.name)", present: "coreml")
  }
  guard isAtLeast(system, manifest.runtime.minimumVersion) else {
    throw Incompatibility.system(needed: manifest.runtime.minimumVersion, present: system)
  }
  if let library = manifest.runtime.library {
    guard library.name == customLayerLibrary.name else { throw Incompatibility.library(needed: "\(library.name) \(library.version)") }
    // Operators are added while the first number stays.
    guard isAtLeast(customLayerLibrary.version, library.version),
      customLayerLibrary.version.split(separator: ".").first == library.version.split(separator: ".").first
    else {
      throw Incompatibility.libraryVersion(needed: library.version, present: customLayerLibrary.version)
    }
  }
  let input = manifest.input
  guard input.dtype == .image, let height = input.height, let width = input.width, input.isOneColourImage else {
    throw Incompatibility.input("\(input.dtype.rawValue) \(describe(input.shape))")
  }
  let rows = try makeAnchors(height: height, width: width, strides: manifest.anchors.strides, minSizes: manifest.anchors.minSizes).count
  let expected: [Meaning: [Int?]] = [.scores: [1, rows], .boxDeltas: [1, rows, 4], .landmarkDeltas: [1, rows, 10]]
  guard manifest.outputs.allSatisfy({ $0.shape == expected[$0.meaning] }) else {
    throw Incompatibility.outputs(manifest.outputs.map { "\($0.meaning.rawValue) \(describe($0.shape))" }.joined(separator: ", "))
  }
}

private func describe(_ shape: [Int?]) -> String { shape.map { $0.map(String.init) ?? "?" }.joined(separator: " x ") }

/// Whether version `have` is `need` or newer: numbers between dots, compared one by one.
public func isAtLeast(_ have: String, _ need: String) -> Bool {
  func parts(_ version: String) -> [Int] {
    version.split(separator: ".", omittingEmptySubsequences: false).map { Int($0.prefix { ("0"..."9").contains($0) }) ?? 0 }
  }
  let (left, right) = (parts(have), parts(need))
  for index in 0..<max(left.count, right.count) {
    let difference = (index < left.count ? left[index] : 0) - (index < right.count ? right[index] : 0)
    if difference != 0 { return difference > 0 }
  }
  return true
}
