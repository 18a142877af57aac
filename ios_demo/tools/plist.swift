// Prints a property list of any format, Xcode's projects among them, as JSON.
import Foundation

let data = try Data(contentsOf: URL(fileURLWithPath: CommandLine.arguments[1]))
let list = try PropertyListSerialization.propertyList(from: data, options: [], format: nil)
FileHandle.standardOutput.write(try JSONSerialization.data(withJSONObject: list))
