/// Milliseconds of the network alone, `runs` measured after `warmup` that were not.
public struct Latency: Sendable, Equatable {
  public let median, p90, p99, min: Double
  public let runs, warmup: Int

  /// - Precondition: there is at least one time.
  public init(times: [Double], warmup: Int) {
    precondition(!times.isEmpty, "nothing was measured")
    let sorted = times.sorted()
    median = percentile(sorted, 50)
    p90 = percentile(sorted, 90)
    p99 = percentile(sorted, 99)
    min = sorted[0]
    runs = times.count
    self.warmup = warmup
  }
}

/// Linear between the neighbours, as NumPy's default.
func percentile(_ sorted: [Double], _ percent: Double) -> Double {
  let place = percent / 100 * Double(sorted.count - 1)
  let below = Int(place)
  let above = Swift.min(below + 1, sorted.count - 1)
  return sorted[below] + (sorted[above] - sorted[below]) * (place - Double(below))
}

/// What a benchmark on a phone measured: a record of `runtime_bench/record.py`, without an evaluation, which is not run on phones.
public struct BenchmarkRecord: Sendable {
  public let artifact: String
  public let manifest: Manifest
  public let runtimeVersion: String

  /// The phone, its system, and the processors that Core ML was allowed.
  public let device: String

  /// The processor's name.
  public let machine: String

  /// 0 where they are the runtime's own affair.
  public let threads: Int
  public let loadMs: Double
  public let latency: Latency
  public let inputHeight, inputWidth: Int

  /// What loading and running the model added to the resident memory of a fresh process, at its peak; nil in a process that was not fresh.
  public let peakMemoryBytes: Int?

  public init(
    artifact: String, manifest: Manifest, runtimeVersion: String, device: String, machine: String, threads: Int, loadMs: Double,
    latency: Latency, inputHeight: Int, inputWidth: Int, peakMemoryBytes: Int?
  ) {
    self.artifact = artifact
    self.manifest = manifest
    self.runtimeVersion = runtimeVersion
    self.device = device
    self.machine = machine
    self.threads = threads
    self.loadMs = loadMs
    self.latency = latency
    self.inputHeight = inputHeight
    self.inputWidth = inputWidth
    self.peakMemoryBytes = peakMemoryBytes
  }

  /// A JSON list with this record in it: the file that `python -m runtime_bench report` reads.
  public func json() throws -> String {
    let times: [(String, Json)] = [
      ("median", .number(latency.median)), ("p90", .number(latency.p90)), ("p99", .number(latency.p99)), ("min", .number(latency.min)),
      ("runs", .number(latency.runs)), ("warmup", .number(latency.warmup)),
    ]
    let record: [(String, Json)] = [
      ("artifact", .string(artifact)),
      ("variant", .string(manifest.variant)),
      ("dcn", .string(manifest.dcn)),
      ("precision", .string(manifest.precision)),
      ("format", .string(manifest.format)),
      ("weights", .string(manifest.weights)),
      ("checkpoint", .string(manifest.reference.sha256)),
      ("runtime", .string(manifest.runtime.name)),
      ("runtime_version", .string(runtimeVersion)),
      ("device", .string(device)),
      ("machine", .string(machine)),
      ("threads", .number(threads)),
      ("size_bytes", .number(manifest.model.sizeBytes)),
      ("load_ms", .number(loadMs)),
      ("latency_ms", .object(times)),
      ("latency_input", .array([.number(inputHeight), .number(inputWidth)])),
      ("peak_memory_bytes", peakMemoryBytes.map { .number($0) } ?? .null),
      ("protocol", .string("letterbox-\(inputHeight)x\(inputWidth)")),
      ("dataset", .string("none")),
      ("images", .number(0)),
      ("failed_images", .array([])),
      ("image_ms", .null),
      ("ap", .null),
      ("ap_reference", .null),
      ("drop", .null),
    ]
    return try Json.array([.object(record)]).text() + "\n"
  }
}
