/// Pixels of four bytes each, row by row, in memory that somebody else owns. Which byte is which colour is the owner's affair.
public struct Picture {
  public let pixels: UnsafeMutableRawPointer
  public let height, width: Int

  /// Bytes from one row to the next, a multiple of 4.
  public let rowBytes: Int

  public init(pixels: UnsafeMutableRawPointer, height: Int, width: Int, rowBytes: Int) {
    precondition(rowBytes >= 4 * width && rowBytes.isMultiple(of: 4), "rows of \(rowBytes) bytes hold no \(width) pixels")
    self.pixels = pixels
    self.height = height
    self.width = width
    self.rowBytes = rowBytes
  }

  fileprivate func row(_ row: Int) -> UnsafeMutablePointer<SIMD4<UInt8>> {
    (pixels + row * rowBytes).assumingMemoryBound(to: SIMD4<UInt8>.self)
  }
}

/// From a photograph to the picture that the network takes, byte for byte as `model/preprocess.py` makes it; mean and scale are in the
/// network's file. Not for two threads at a time.
///
/// Buffers are kept: frames of one size allocate nothing.
public final class Letterboxer {
  private let border: SIMD4<UInt8>
  private var photographHeight = 0
  private var photographWidth = 0
  private var letterbox: Letterbox?

  /// Nil where that axis keeps its length.
  private var columns: Resampling?
  private var rows: Resampling?

  /// The photograph after one axis was resized.
  private var between: [SIMD4<UInt8>] = []

  /// - Parameter border: the pixel that fills what the photograph leaves free; its bytes are in the pictures' order.
  public init(border: SIMD4<UInt8>) { self.border = border }

  /// The mean colour for pictures of blue, green, red, alpha.
  ///
  /// - Parameter spec: its means are whole numbers in every artifact of this project; others are rounded.
  public convenience init(spec: InputSpec) {
    let mean = spec.mean.map { UInt8(min(max($0.rounded(), 0), 255)) }
    let (blue, red) = spec.colourOrder == .bgr ? (mean[0], mean[2]) : (mean[2], mean[0])
    self.init(border: SIMD4(blue, mean[1], red, 255))
  }

  /// Fills `picture` with the resized photograph and the border.
  public func prepare(_ photograph: Picture, into picture: Picture) -> Letterbox {
    let letterbox = fit(photograph, picture)
    switch (columns, rows) {
    case (nil, nil):
      for row in 0..<letterbox.height { picture.row(row).update(from: photograph.row(row), count: letterbox.width) }
    case (let columns?, nil):
      resizeRows(photograph, columns, into: picture)
    case (nil, let rows?):
      resizeColumns(photograph, rows, into: picture)
    case (let columns?, let rows?):
      let first = columnsFirst(letterbox)
      let size = first ? (letterbox.height, photographWidth) : (photographHeight, letterbox.width)
      between.withUnsafeMutableBytes { bytes in
        let between = Picture(pixels: bytes.baseAddress!, height: size.0, width: size.1, rowBytes: 4 * size.1)
        if first {
          resizeColumns(photograph, rows, into: between)
          resizeRows(between, columns, into: picture)
        } else {
          resizeRows(photograph, columns, into: between)
          resizeColumns(between, rows, into: picture)
        }
      }
    }
    for row in 0..<picture.height {
      let taken = row < letterbox.height ? letterbox.width : 0
      (picture.row(row) + taken).update(repeating: border, count: picture.width - taken)
    }
    return letterbox
  }

  private func fit(_ photograph: Picture, _ picture: Picture) -> Letterbox {
    let fitted = Letterbox(
      photographHeight: photograph.height, photographWidth: photograph.width, inputHeight: picture.height, inputWidth: picture.width)
    if let letterbox, letterbox == fitted, photographHeight == photograph.height, photographWidth == photograph.width { return letterbox }
    photographHeight = photograph.height
    photographWidth = photograph.width
    columns = fitted.width == photographWidth ? nil : Resampling(from: photographWidth, to: fitted.width)
    rows = fitted.height == photographHeight ? nil : Resampling(from: photographHeight, to: fitted.height)
    let count = columnsFirst(fitted) ? fitted.height * photographWidth : photographHeight * fitted.width
    between = Array(repeating: .zero, count: columns == nil || rows == nil ? 0 : count)
    letterbox = fitted
    return fitted
  }

  /// Which axis Pillow 13 resizes first: found by trial, and the order shows in the last bit.
  private func columnsFirst(_ to: Letterbox) -> Bool {
    to.height < photographHeight && photographHeight - to.height > 2 * (photographWidth - to.width)
  }

  /// Makes every row as long as `filter` says.
  private func resizeRows(_ from: Picture, _ filter: Resampling, into to: Picture) {
    filter.weights.withUnsafeBufferPointer { weights in
      filter.sources.withUnsafeBufferPointer { sources in
        for row in 0..<min(from.height, to.height) {
          let (source, target) = (from.row(row), to.row(row))
          for column in 0..<filter.count {
            var sum = Resampling.half
            var weight = column * filter.taps
            for index in sources[column] {
              sum &+= SIMD4<Int32>(truncatingIfNeeded: source[index]) &* SIMD4(repeating: weights[weight])
              weight += 1
            }
            target[column] = Resampling.bytes(sum)
          }
        }
      }
    }
  }

  /// Makes every column as long as `filter` says.
  private func resizeColumns(_ from: Picture, _ filter: Resampling, into to: Picture) {
    filter.weights.withUnsafeBufferPointer { weights in
      for row in 0..<filter.count {
        let (sources, target) = (filter.sources[row], to.row(row))
        for column in 0..<min(from.width, to.width) {
          var sum = Resampling.half
          var weight = row * filter.taps
          for index in sources {
            sum &+= SIMD4<Int32>(truncatingIfNeeded: from.row(index)[column]) &* SIMD4(repeating: weights[weight])
            weight += 1
          }
          target[column] = Resampling.bytes(sum)
        }
      }
    }
  }
}
