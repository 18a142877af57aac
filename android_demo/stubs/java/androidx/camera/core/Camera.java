// A signature, not the library: written by hand to compile against where the library cannot be had. See ../README.md.
package androidx.camera.core;

public interface Camera {
    CameraInfo getCameraInfo();
}
