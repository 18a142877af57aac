plugins {
    alias(libs.plugins.android.application)
}

// C headers of LiteRT, which its Android package does not have; make native fetches them.
val litertInclude: String =
    providers.gradleProperty("litertInclude").orNull
        ?: rootDir.resolve("../build/native/include").listFiles().orEmpty()
            .firstOrNull { it.name.startsWith("litert_include-") }?.canonicalPath.orEmpty()

android {
    namespace = "acwface.demo"
    compileSdk = libs.versions.compileSdk.get().toInt()

    defaultConfig {
        applicationId = "acwface.demo"
        minSdk = libs.versions.minSdk.get().toInt()
        targetSdk = libs.versions.targetSdk.get().toInt()
        versionCode = 1
        versionName = "0.1"
        buildConfigField("String", "LITERT_VERSION", "\"${libs.versions.litert.get()}\"")
        externalNativeBuild {
            cmake {
                // Elsewhere the app runs without the library, and models that need it say so.
                abiFilters += "arm64-v8a"
                targets += listOf("acwface_jni", "acwface_litert") // not the library of the kernel's tests
                arguments += listOf("-DLITERT_INCLUDE=$litertInclude", "-DANDROID_SUPPORT_FLEXIBLE_PAGE_SIZES=ON")
            }
        }
    }

    buildFeatures {
        buildConfig = true
    }

    externalNativeBuild {
        cmake {
            path = file("src/main/cpp/CMakeLists.txt")
        }
    }

    androidResources {
        noCompress += "tflite" // models are mapped into memory
    }

    compileOptions {
        sourceCompatibility = JavaVersion.toVersion(libs.versions.java.get())
        targetCompatibility = JavaVersion.toVersion(libs.versions.java.get())
    }
}

dependencies {
    implementation(project(":core"))
    implementation(libs.androidx.activity)
    implementation(libs.androidx.annotation)
    implementation(libs.camera.camera2)
    implementation(libs.camera.core)
    implementation(libs.camera.lifecycle)
    implementation(libs.camera.view)
    implementation(libs.litert)
    implementation(libs.litert.gpu)
    testImplementation(libs.kotlin.test.junit)
    testImplementation(libs.junit)
}
