plugins {
    alias(libs.plugins.kotlin.jvm)
}

kotlin {
    jvmToolchain(libs.versions.java.get().toInt())
}

dependencies {
    testImplementation(libs.kotlin.test.junit)
    testImplementation(libs.junit)
}

tasks.test {
    val golden = rootDir.resolve("../tests/golden")
    inputs.dir(golden)
    systemProperty("golden", golden.path)
}
