// Core Foundation's types, as far as the other stubs need them.
@_exported import Foundation

public typealias CFString = String
public typealias CFDictionary = NSDictionary
public typealias CFData = NSData
public typealias CFAllocator = NSObject
