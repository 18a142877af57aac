@_exported import CoreGraphics

open class CALayer: NSObject {}  // objc CALayer
