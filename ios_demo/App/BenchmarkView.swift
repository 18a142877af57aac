import FaceCore
import Foundation
import SwiftUI
import UIKit

/// What to measure. From a Mac, in a process that does nothing else:
///
///     xcrun devicectl device process launch --console --terminate-existing --device PHONE acwface.demo -benchmark NAME -units all -runs 50
struct BenchmarkRequest: Sendable {
  var model: String
  var units = ComputeUnits.all
  var warmup = 10
  var runs = 50
  var isValid = true

  init(model: String, units: ComputeUnits) {
    self.model = model
    self.units = units
  }

  /// - Returns: nil where the app was not started for it.
  init?(defaults: UserDefaults) {
    guard let model = defaults.string(forKey: "benchmark") else { return nil }
    self.model = model
    let units = ComputeUnits(rawValue: defaults.string(forKey: "units") ?? self.units.rawValue)
    let (warmup, runs) = (defaults.string(forKey: "warmup") ?? "\(warmup)", defaults.string(forKey: "runs") ?? "\(runs)")
    if let units, let warmup = Int(warmup), let runs = Int(runs), warmup >= 0, runs >= 1 {
      (self.units, self.warmup, self.runs) = (units, warmup, runs)
    } else {
      isValid = false
    }
  }
}

/// Measures a model and writes the harness's record, whole or not at all.
///
/// - Returns: the record's file, in the app's documents.
func measure(_ request: BenchmarkRequest, _ model: Model, _ detector: Detector) async throws -> URL {
  guard request.isValid else { throw ModelError(text: Texts.benchmarkArguments) }
  let measured = try await detector.measure(model, request.units, warmup: request.warmup, runs: request.runs)
  let input = model.manifest.input
  guard let height = input.height, let width = input.width else { throw ModelError(text: Texts.noPictureBuffer) }
  let machine = machine()
  let record = BenchmarkRecord(
    artifact: model.name, manifest: model.manifest, runtimeVersion: "iOS \(Models.systemVersion)",
    device: "Apple \(machine), iOS \(Models.systemVersion), \(request.units.rawValue)", machine: machine, threads: 0,
    loadMs: measured.loadMs, latency: Latency(times: measured.times, warmup: request.warmup), inputHeight: height, inputWidth: width,
    peakMemoryBytes: measured.peakMemoryBytes)
  let folder = try FileManager.default
    .url(for: .documentDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
    .appendingPathComponent("benchmark")
  try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  let file = folder.appendingPathComponent("\(model.name)-\(request.units.rawValue).json")
  try Data(try record.json().utf8).write(to: file, options: .atomic)
  return file
}

/// As Apple calls the phone, "iPhone15,2"; iOS does not tell the processor's name.
private func machine() -> String {
  var system = utsname()
  uname(&system)
  return withUnsafeBytes(of: system.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
}

/// Measures the chosen model, or at once what the app was started for; shows the record and shares it.
struct BenchmarkView: View {
  let session: DetectorSession
  let request: BenchmarkRequest?
  @State private var file: URL?
  @State private var text = ""
  @State private var isRunning = false

  var body: some View {
    ScrollView {
      VStack(alignment: .leading, spacing: 12) {
        if request == nil {
          ModelPanel(session: session)
          Button(Texts.measure) {
            guard let chosen = session.chosen else { return }
            Task { await run(BenchmarkRequest(model: chosen, units: session.units)) }
          }
          .disabled(isRunning || session.chosen == nil)
        }
        if let file { ShareLink(Texts.share, item: file) }
        Text(text).font(.footnote.monospaced()).textSelection(.enabled)
      }
      .frame(maxWidth: .infinity, alignment: .leading)
      .padding()
    }
    .task {
      guard let request else { return }
      UIApplication.shared.isIdleTimerDisabled = true
      await session.readModels(opening: false)
      await run(request)
    }
  }

  private func run(_ request: BenchmarkRequest) async {
    (isRunning, file, text) = (true, nil, Texts.measuring(request.model))
    do {
      let written = try await measure(request, try session.model(named: request.model), session.detector)
      (file, text) = (written, try String(contentsOf: written, encoding: .utf8))
    } catch {
      text = Texts.notMeasured(error.localizedDescription)
    }
    isRunning = false
    if self.request == nil { session.reopen() } else { print(text) }
  }
}
