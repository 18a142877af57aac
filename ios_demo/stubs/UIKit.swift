@_exported import QuartzCore

@MainActor open class UIView: NSObject {
  public override nonisolated init() {}  // objc +[UIView new]
  open class var layerClass: AnyClass { fatalError() }  // objc UIView.layerClass
  public var layer: CALayer { fatalError() }  // objc UIView.layer
}

@MainActor open class UIApplication: NSObject {
  public class var shared: UIApplication { fatalError() }  // objc UIApplication.sharedApplication
  public var isIdleTimerDisabled = false  // objc UIApplication.idleTimerDisabled
  public nonisolated static let openSettingsURLString = ""  // objc UIApplicationOpenSettingsURLString
}

public final class UIImage: NSObject, Sendable {
  public init?(data: Data) { fatalError() }  // objc -[UIImage initWithData:]
}
